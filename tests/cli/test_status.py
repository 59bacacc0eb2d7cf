"""tfserving status"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client.fakes import half
from tfserving.cli.status import main

pytestmark = pytest.mark.usefixtures("in_repository", "only_named_servers")

CONFIG = """model_config_list {
  config {
    name: "half"
    base_path: "/models/half"
    model_platform: "tensorflow"
    version_labels { key: "old" value: 1 }
  }
}
"""


def write_config(text=CONFIG):
    Path("models/models.config").write_text(text)


def test_prints_versions_states_and_labels_of_each_server(run, rpc_server, service):
    write_config()
    service.labels["half", "old"] = 1
    service.models["half"][3] = half(3)
    service.models["half"][3].state = 20
    service.models["half"][0] = half(0)
    service.models["half"][0].state = 50  # unloaded
    status, out, err = run(main, "--server", rpc_server.address)
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["SERVER", "MODEL", "VERSION", "STATE", "DEFAULT", "LABELS", "ERROR"],
        [rpc_server.address, "half", "3", "LOADING"],
        [rpc_server.address, "half", "2", "AVAILABLE", "yes"],
        [rpc_server.address, "half", "1", "AVAILABLE", "old,stable"],
    ]


def test_prints_one_json_document(run, rpc_server, service, make_version):
    make_version("half", 1)  # without a config, the names are those in the repository
    service.models["half"][2].state = 50
    status, out, err = run(main, "--server", rpc_server.address, "--json")
    assert (status, err) == (0, "")
    (server,) = json.loads(out)["servers"]
    assert (server["address"], server["name"], server["error"]) == (rpc_server.address, None, None)
    assert server["models"] == [
        {
            "name": "half",
            "default_version": 1,
            "labels": {"stable": 1},
            "versions": [
                {"version": 2, "state": "END", "error": None},
                {"version": 1, "state": "AVAILABLE", "error": None},
            ],
        }
    ]


def test_fails_if_a_model_of_the_config_is_not_served(run, rpc_server, service):
    write_config(CONFIG.replace('"half"', '"other"'))
    status, out, _ = run(main, "--server", rpc_server.address)
    assert (status, out.splitlines()[1].split()) == (1, [rpc_server.address, "other", "-", "not", "served"])
    write_config()
    for version in service.models["half"].values():
        version.state = 20
    assert run(main, "--server", rpc_server.address)[0] == 1


def test_reports_a_server_that_does_not_respond_beside_one_that_does(run, rpc_server):
    write_config()
    addresses = f"127.0.0.1:1,{rpc_server.address}"
    status, out, _ = run(main, "--server", addresses, "--timeout", "0.5")
    assert status == 1
    assert "127.0.0.1:1 " in out.splitlines()[1]
    assert f"{rpc_server.address}  half" in out
    servers = json.loads(run(main, "--server", addresses, "--timeout", "0.5", "--json")[1])["servers"]
    assert [bool(server["error"]) for server in servers] == [True, False]


def test_fails_without_a_server(run):
    status, out, err = run(main)
    assert (status, out) == (1, "")
    assert err == (
        "tfserving status: error: no running server that run_tf_serving.sh started uses "
        "models/models.config; name servers with --server HOST:PORT\n"
    )
