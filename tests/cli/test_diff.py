"""tfserving diff"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client.fakes import half
from tfserving.cli.diff import main

pytestmark = pytest.mark.usefixtures("in_repository", "only_named_servers")

CONFIG = """model_config_list {
  config {
    name: "half"
    base_path: "/models/half"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
  }
}
"""


@pytest.fixture
def diff(run, rpc_server, make_version):
    """Runs diff for a server with versions 1, labelled stable, and 2, and a repository with 1 to 3."""
    for version in (1, 2, 3):
        make_version("half", version)

    def run_diff(config, *options):
        Path("models/models.config").write_text(config)
        return run(main, "--server", rpc_server.address, *options)

    return run_diff


def test_finds_no_difference(diff, rpc_server):
    assert diff(CONFIG) == (0, f"{rpc_server.address}: no differences\n", "")


def test_prints_what_a_server_would_load_unload_and_relabel(diff, rpc_server, service):
    service.labels["half", "canary"] = 2
    service.models["half"][0] = half(0)
    service.models["half"][0].state = 50  # unloaded already
    config = CONFIG.replace("versions: 1 versions: 2", "versions: 2 versions: 3").replace(
        'key: "stable" value: 1', 'key: "stable" value: 3'
    )
    at = f"{rpc_server.address}: "
    assert diff(config) == (
        1,
        f"{at}load half 3\n{at}unload half 1\n"
        f"{at}label half canary 2 -> none\n{at}label half stable 1 -> 3\n",
        "",
    )
    (server,) = json.loads(diff(config, "--json")[1])["servers"]
    assert server["models"] == [
        {
            "name": "half",
            "load": [3],
            "unload": [1],
            "labels": [
                {"label": "canary", "before": 2, "after": None},
                {"label": "stable", "before": 1, "after": 3},
            ],
        }
    ]


def test_finds_models_that_the_config_no_longer_has(diff, rpc_server, make_version):
    make_version("other", 1)
    status, out, _ = diff(
        CONFIG.replace('name: "half"', 'name: "other"').replace("models/half", "models/other")
    )
    assert status == 1
    lines = {line.removeprefix(f"{rpc_server.address}: ") for line in out.splitlines()}
    assert {"load other 1", "unload half 1", "unload half 2", "label half stable 1 -> none"} <= lines


def test_exits_with_2_if_it_cannot_compare(diff, run):
    status, out, err = diff(CONFIG.replace("base_path", "base_dir"))
    assert (status, out) == (2, "")
    assert "models.config:4: error: " in err
    assert err.endswith("models.config is not valid; fix the errors above\n")
    Path("models/models.config").write_text(CONFIG)
    status, out, err = run(main, "--server", "127.0.0.1:1", "--timeout", "0.3")
    assert (status, out) == (2, "")
    assert err.startswith("tfserving diff: error: 127.0.0.1:1 does not respond: ")
    status, _, err = run(main)
    assert (status, "no running server" in err) == (2, True)
    assert run(main, "--config", "nothing", "--server", "127.0.0.1:1")[0] == 2
