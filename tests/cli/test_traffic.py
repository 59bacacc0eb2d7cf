"""tfserving traffic"""

from __future__ import annotations

import json
import shutil

import pytest

from tests.embedded import ROOT
from tfserving.cli.traffic import main


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """The default directory of the gateway."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFSERVING_GATEWAY_DIR", raising=False)
    return shutil.copytree(ROOT / "deploy" / "gateway" / "dynamic", tmp_path / "gateway")


def test_sets_and_shows_the_weights(run):
    assert run(main, "show") == (0, "stable 100\ncanary 0\n", "")
    assert run(main, "set", "stable=95", "canary=5") == (0, "stable 95\ncanary 5\n", "")
    assert run(main, "show") == (0, "stable 95\ncanary 5\n", "")
    status, out, _ = run(main, "show", "--json")
    assert (status, json.loads(out)) == (0, {"weights": {"stable": 95, "canary": 5}})
    assert run(main, "set", "stable=100") == (0, "stable 100\ncanary 0\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stable"], "'stable' is not GROUP=PERCENT with an integer from 0 to 100, such as canary=5"),
        (["stable=99.5", "canary=0.5"], "'stable=99.5' is not GROUP=PERCENT"),
        (["stable=-1", "canary=101"], "'stable=-1' is not GROUP=PERCENT"),
        (["stable=50", "stable=50"], "'stable=50' names group stable again; name each group once"),
        (["stable=50", "canary=49"], "the weights stable=50 canary=49 add up to 99, not to 100"),
        (["blue=100"], "'blue' is not a group of gateway/routes.json (groups: stable, canary)"),
    ],
)
def test_rejects_invalid_weights_without_writing(run, directory, words, message):
    before = (directory / "routes.json").read_bytes()
    status, out, err = run(main, "set", *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"tfserving traffic: error: {message}")
    assert (directory / "routes.json").read_bytes() == before


@pytest.mark.parametrize("argv", [(), ("set",), ("get",)])
def test_rejects_misuse(run, argv):
    status, out, err = run(main, *argv)
    assert (status, out) == (2, "")
    assert "usage: tfserving traffic" in err
