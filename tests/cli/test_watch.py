"""tfserving watch"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.embedded import ROOT, embedded
from tests.versioned_model import VersionedModel, export
from tfserving.cli.watch import main
from tfserving.client import TfRpcClient

pytestmark = pytest.mark.usefixtures("only_named_servers")


def test_json_needs_once(run):
    status, out, err = run(main, "--json")
    assert (status, out) == (2, "")
    assert err == "tfserving watch: error: --json needs --once: a live table is not a JSON document\n"


def test_shows_servers_without_metrics_and_servers_that_do_not_respond(run, rpc_server, in_repository):
    Path("models/half/1").mkdir(parents=True)
    addresses = f"{rpc_server.address},127.0.0.1:1"
    status, out, _ = run(main, "--once", "--interval=0.01", "--timeout=0.5", "--server", addresses)
    assert status == 1
    rows = [line.split() for line in out.splitlines()[1:]]
    assert [rpc_server.address, "half", "1", "AVAILABLE", "stable", "-", "-", "-", "-"] in rows
    assert rows[-1] == ["127.0.0.1:1", "-", "-", "does", "not", "respond"]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """An embedded server with metrics and versions 1 and 2 of a model, as run_tf_serving.sh starts it."""
    folder = tmp_path_factory.mktemp("watch")
    export(folder / "exported")
    models, run_dir = folder / "models", folder / "run"
    model = VersionedModel(folder / "exported")
    for version in (1, 2):
        model.publish(models / "m", version)
    (models / "models.config").write_text(
        'model_config_list { config { name: "m" base_path: "/models/m" model_platform: "tensorflow" '
        'model_version_policy { all {} } version_labels { key: "stable" value: 1 } } }'
    )
    with embedded(
        folder / "log",
        f"--model_config_file={models / 'models.config'}",
        f"--models_dir={models}",
        f"--monitoring_config_file={ROOT / 'deploy/monitoring/monitoring.config'}",
        "--allow_version_labels_for_unavailable_models=true",
    ) as server:
        run_dir.mkdir()
        (run_dir / "w.pid").write_text(f"{server.process.pid}\n")
        (run_dir / "w.command").write_text("".join(f"{word}\n" for word in server.process.args))
        yield server, folder


@pytest.mark.tensorflow
def test_prints_calls_errors_and_latencies_by_model_and_version(started, monkeypatch, run):
    server, folder = started
    monkeypatch.setenv("RUN_DIR", str(folder / "run"))

    def call_instead_of_waiting(_seconds):
        with TfRpcClient(server.grpc, "m") as client:
            for label in [None] * 20 + ["stable"] * 10:
                client.infer([1.0], label=label)

    monkeypatch.setattr("tfserving.cli.watch.time.sleep", call_instead_of_waiting)
    arguments = ("--once", "--models-dir", str(folder / "models"))
    status, out, err = run(main, *arguments, "--json")
    assert (status, err) == (0, "")
    (found,) = json.loads(out)["servers"]
    assert (found["name"], found["address"], found["engine"]) == ("w", server.grpc, "embedded")
    (model,) = found["models"]
    assert (model["default_version"], model["labels"]) == (2, {"stable": 1})
    assert [version["metrics"]["calls"] for version in model["versions"]] == [20, 10]
    assert (model["metrics"]["calls"], model["metrics"]["error_rate"]) == (30, 0)
    assert 0 < model["metrics"]["p50"] <= model["metrics"]["p99"]

    status, out, _ = run(main, *arguments)
    assert status == 0
    header, *rows = (re.split(r"  +", line.strip()) for line in out.splitlines())
    assert header[-4:] == ["CALLS/S", "ERRORS", "P50 MS", "P99 MS"]
    assert [row[1:-4] for row in rows] == [
        ["m", "all"],
        ["m", "2", "AVAILABLE", "yes"],
        ["m", "1", "AVAILABLE", "stable"],
    ]
    assert all(row[-3] == "0.0%" and float(row[-4]) > 0 for row in rows)


@pytest.mark.tensorflow
def test_shows_a_live_table_until_it_is_interrupted(started):
    pytest.importorskip("rich")
    server, folder = started
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "tfserving", "watch", "--interval=0.05"]
    command += ["--models-dir", str(folder / "models")]
    environment = os.environ | {"RUN_DIR": str(folder / "run"), "COLUMNS": "150", "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=follower, stderr=follower)
    os.close(follower)
    try:
        shown, deadline = b"", time.monotonic() + 60
        while shown.count(b"P99 MS") < 3:
            assert time.monotonic() < deadline, shown
            if select.select([leader], [], [], 1)[0]:
                shown += os.read(leader, 65536)
        assert server.grpc.encode() in shown
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
