"""tfserving tune"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.tune.fake_runs import FakeMachine, make_trial
from tfserving.cli import tune
from tfserving.cli.tune import main
from tfserving.tune import trial_runner

ROOT = Path(__file__).parents[2]


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A model repository with version 3 of "half", of which only the signature exists."""
    from tests.client.fakes import half
    from tfserving.wire import messages

    graph = messages.SavedModel()
    meta_graph = graph.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    for name in ("serving_default", "scalar"):
        meta_graph.signature_def[name].CopyFrom(half(3).signatures[name])
    version = tmp_path / "models" / "half" / "3"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(graph.SerializeToString())
    monkeypatch.chdir(tmp_path)
    for name in ("MODELS_DIR", "START_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "models"


@pytest.fixture
def machine(monkeypatch):
    """Measurements that are computed, without the time that they would take."""
    made = FakeMachine(lambda settings: make_trial(settings, rate=100.0 + 50 * settings.intra_op_threads))

    def run(self, settings, phase, number, seconds, on_phase):
        return made.run(settings, phase, number, seconds)

    monkeypatch.setattr(trial_runner.TrialRunner, "run", run)
    return made


@pytest.mark.usefixtures("models", "machine")
def test_writes_settings_a_report_and_warmup_records(run, tmp_path):
    status, out, err = run(main, "half", "--p99-ms", "50", "--concurrency", "4", "--budget", "30s")
    assert status == 0, err
    directory = tmp_path / "tuned" / "half"
    names = {path.name for path in directory.iterdir()}
    assert names >= {"settings.env", "report.json", "report.html", "assets.extra", "trials.jsonl"}
    report = json.loads((directory / "report.json").read_text())
    assert report["version"] == 3
    assert "tuned: " in out
    assert "bash run_tf_serving.sh --env-file tuned/half/settings.env" in out
    assert "search, default: 100 calls/s, p99 20 ms" in err


@pytest.mark.usefixtures("models")
def test_a_second_run_continues_and_prints_json(run, machine):
    run(main, "half", "--budget", "30s")
    before = len(machine.made)
    status, out, err = run(main, "half", "--budget", "30s", "--json")
    assert (status, len(machine.made)) == (0, before)
    assert f"continuing with {before} trials" in err
    assert len(json.loads(out)["trials"]) == before


@pytest.mark.usefixtures("models", "machine")
def test_fails_and_writes_no_settings_if_nothing_keeps_the_objective(run, tmp_path):
    status, out, _ = run(main, "half", "--p99-ms", "1", "--budget", "30s")
    assert status == 1
    assert "no settings keep the objective" in out
    assert not (tmp_path / "tuned" / "half" / "settings.env").exists()
    assert (tmp_path / "tuned" / "half" / "report.html").exists()


@pytest.mark.usefixtures("models", "machine")
def test_rejects_another_load_in_the_same_directory(run):
    run(main, "half", "--budget", "30s")
    status, _, err = run(main, "half", "--concurrency", "2")
    assert status == 2
    assert "callers 8, now 2; pass another --out directory" in err


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("half", "--budget", "10"), "'10' is not a time from 5s to 24h, such as 90s, 10m or 1h"),
        (("half", "--budget", "4s"), "'4s' is not a time from 5s to 24h"),
        (("half", "--budget", "25h"), "'25h' is not a time from 5s to 24h"),
        (("half", "--p99-ms", "0"), "'0' is not a number of milliseconds above 0"),
        (("half", "--p99-ms", "nan"), "'nan' is not a number of milliseconds above 0"),
        (("half", "--concurrency", "0"), "'0' is not a whole number from 1 to 999999"),
        (("half", "--objective", "cost"), "invalid choice: 'cost'"),
        (("half", "--engine", "auto"), "invalid choice: 'auto'"),
        (("half", "--image", "x"), "--image is for --engine docker; omit it"),
        (("half/3",), "'half/3' is not the name of a model; omit the version"),
        (("none",), "cannot list models/none"),
        (("half", "--signature", "other"), "--signature other: model 'half' has no such signature"),
        (("half", "--shape", "z=1"), "--shape z: signature 'serving_default' has no such input"),
        (("half", "--data", "x.npy"), "--data x.npy is not an .npz file"),
        (("half", "--warmup-records", "none"), "--warmup-records: none does not exist"),
        (("half", "--out", "models/half/3/saved_model.pb"), "cannot create models/half/3/saved_model.pb"),
    ],
)
def test_rejects_invalid_arguments_before_it_starts_a_server(run, argv, message):
    status, out, err = run(main, *argv)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.tensorflow
def test_survives_a_kill_and_an_interrupt_and_stops_its_servers(tmp_path):
    make_model(tmp_path / "models" / "half" / "1")
    out = tmp_path / "out"
    trials = out / "trials.jsonl"

    def start(*argv):
        command = [
            sys.executable,
            "-m",
            "tfserving",
            "tune",
            "half",
            "--models-dir",
            str(tmp_path / "models"),
        ]
        command += ["--out", str(out), *argv]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_for_server(process, count):
        """Wait until so many trials are complete, and a server runs for the next one."""
        while not (count_lines(trials) >= count and list_servers(tmp_path)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)

    process = start("--concurrency", "16", "--budget", "10m")
    wait_for_server(process, 2)
    process.kill()
    process.communicate()
    wait_until_no_server_runs(tmp_path)

    process = start("--concurrency", "16", "--budget", "10m")
    wait_for_server(process, 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert f"continuing with 1 trials of {trials}" in err
    assert "interrupted; run the same command again to continue" in err
    assert list_servers(tmp_path) == []

    process = start("--concurrency", "16", "--budget", "5s")
    printed, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "increase --budget" in printed
    assert {path.name for path in out.iterdir()} >= {"settings.env", "report.json", "report.html"}


def make_model(version_dir):
    """Export y = x / 2 in a new process, which imports TensorFlow."""
    program = (
        "import sys, tensorflow as tf\n"
        "module = tf.Module()\n"
        "signature = [tf.TensorSpec((None, 64, 64), tf.float32, name='x')]\n"
        "module.run = tf.function(lambda x: {'y': x @ x @ x}, input_signature=signature)\n"
        "tf.saved_model.save(module, sys.argv[1], signatures={'serving_default': module.run})\n"
    )
    subprocess.run([sys.executable, "-c", program, str(version_dir)], check=True, capture_output=True)


def count_lines(path):
    return path.read_text().count("\n") if path.exists() else 0


def list_servers(models):
    """The ids of the processes of the embedded server that serve models below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "tfserving.server" in words and str(models) in words:
                found.append(int(entry.name))
    return found


def wait_until_no_server_runs(models):
    deadline = time.monotonic() + 30
    while list_servers(models):
        assert time.monotonic() < deadline, "a server runs on"
        time.sleep(0.02)


def test_the_clock_of_a_budget():
    assert tune._clock(599.9) == "9:59"
    assert np.isclose(tune._parse_budget("10m"), 600)
