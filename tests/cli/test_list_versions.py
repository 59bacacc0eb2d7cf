"""tfserving versions"""

from __future__ import annotations

import pytest

from tfserving.cli.list_versions import main

pytestmark = pytest.mark.usefixtures("in_repository")


def test_prints_the_versions_in_ascending_order(run, make_version):
    for version in (10, 9, "v3"):
        make_version("a", version)
    assert run(main, "a", "--models-dir", "models") == (0, "9\n10\n", "")


def test_rejects_a_missing_model(run):
    assert run(main, "a", "--models-dir", "models") == (
        2,
        "",
        "tfserving versions: error: cannot list models/a: No such file or directory; "
        "expected a directory of versions\n",
    )


def test_prints_the_next_version(run, make_version):
    assert run(main, "a", "--models-dir", "models", "--next") == (0, "1\n", "")
    make_version("a", 4)
    assert run(main, "a", "--models-dir", "models", "--next") == (0, "5\n", "")


@pytest.mark.parametrize("name", ["../a", "a b", "a;b", "", "a'b", "-a/"])
@pytest.mark.parametrize("option", [(), ("--next",)])
def test_rejects_an_invalid_name(option, name, run):
    status, out, err = run(main, *option, "--models-dir", "models", "--", name)
    assert (status, out) == (2, "")
    assert "is not a valid model name; use letters, digits" in err
