"""tfserving clients"""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.embedded import ROOT
from tfserving.cli.clients import main


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """The default directory of the gateway."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFSERVING_GATEWAY_DIR", raising=False)
    return shutil.copytree(ROOT / "deploy" / "gateway" / "dynamic", tmp_path / "gateway")


def test_prints_only_the_token_to_stdout(run):
    status, out, err = run(main, "add", "ranker")
    assert status == 0
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", out)
    message = "tfserving clients: created token ranker.1; it is not shown again, keep it like a password\n"
    assert err == message


def test_lists_and_revokes(run):
    run(main, "add", "ranker")
    run(main, "add", "ranker", "--days", "30")
    status, out, _ = run(main, "list")
    assert status == 0
    assert re.sub(r"\d{4}-\d\d-\d\d", "DATE", out) == (
        "TOKEN     CLIENT  CREATED     EXPIRES\nranker.1  ranker  DATE  never\nranker.2  ranker  DATE  DATE\n"
    )
    status, out, _ = run(main, "list", "--json")
    first, second = json.loads(out)["tokens"]
    assert (first["token"], first["client"], first["expires"]) == ("ranker.1", "ranker", None)
    assert second["expires"] > second["created"]
    assert run(main, "revoke", "ranker.1") == (0, "revoked ranker.1\n", "")
    assert run(main, "revoke", "ranker") == (0, "revoked ranker.2\n", "")
    assert run(main, "list") == (0, "TOKEN  CLIENT  CREATED  EXPIRES\n", "")


def test_reports_an_unknown_client(run):
    assert run(main, "revoke", "ranker") == (
        2,
        "",
        "tfserving clients: error: 'ranker' is neither a client nor a token (tokens: none); "
        "nothing was changed\n",
    )


def test_takes_the_directory_from_the_option_or_the_environment(run, directory, monkeypatch, tmp_path):
    moved = directory.rename(tmp_path / "elsewhere")
    status, _, err = run(main, "list")
    assert status == 2
    assert "cannot read gateway/authentication.json: No such file or directory" in err
    assert run(main, "list", "--gateway-dir", str(moved))[0] == 0
    monkeypatch.setenv("TFSERVING_GATEWAY_DIR", str(moved))
    assert run(main, "list")[0] == 0


@pytest.mark.parametrize("argv", [(), ("add",), ("remove", "a"), ("add", "a", "--days", "x")])
def test_rejects_misuse(run, argv):
    status, out, err = run(main, *argv)
    assert (status, out) == (2, "")
    assert "usage: tfserving clients" in err
