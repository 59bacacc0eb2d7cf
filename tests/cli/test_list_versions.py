"""tfserving versions"""

from __future__ import annotations

import json
import re
from pathlib import Path

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


CONFIG = """model_config_list {
  config {
    name: "a"
    base_path: "/models/a"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 9 versions: 10 } }
    version_labels { key: "stable" value: 9 }
  }
  config { name: "twin" base_path: "/models/a" model_platform: "tensorflow" }
}
"""


@pytest.mark.usefixtures("only_named_servers")
def test_prints_a_table_of_all_models(run, make_version):
    for model, version in (("a", 8), ("a", 9), ("a", 10), ("b", 1)):
        path = make_version(model, version)
    (path / "variables" / "variables.index").unlink()
    Path("models/models.config").write_text(CONFIG)
    status, out, err = run(main)
    assert (status, err) == (0, "")
    rows = [re.split(r"  +", line) for line in out.splitlines()]
    assert rows[0] == ["MODEL", "VERSION", "SIZE", "CHANGED", "CONFIG", "ERROR"]
    assert [[row[0], row[1], *row[4:]] for row in rows[1:]] == [
        ["a", "8", "-"],
        ["a", "9", "a (stable)"],
        ["a", "10", "a, twin"],
        ["b", "1", "-", "has no variables/variables.index"],
    ]
    assert run(main, "b", "--long")[1].splitlines()[1].startswith("b      1        ")


@pytest.mark.usefixtures("only_named_servers")
def test_prints_one_json_document(run, make_version):
    make_version("a", 9)
    Path("models/models.config").write_text(CONFIG)
    (version,) = json.loads(run(main, "a", "--json")[1])["versions"]
    assert version.pop("size") > 8
    assert version.pop("changed").endswith("+00:00")
    assert version == {
        "model": "a",
        "version": 9,
        "path": "models/a/9",
        "selected": {"a": ["stable"], "twin": []},
        "error": None,
    }


@pytest.mark.usefixtures("only_named_servers")
def test_prints_an_empty_table_without_models_and_an_error_without_a_name(run):
    assert run(main)[:2] == (0, "MODEL  VERSION  SIZE  CHANGED  CONFIG  ERROR\n")
    status, _, err = run(main, "--next")
    assert (status, "--next needs NAME" in err) == (2, True)
