"""The files of a result: the server starts with them, and the report has every trial."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest

from tests.embedded import ROOT
from tests.tune.fake_runs import STUDY, FakeMachine, batching, make_trial, tune
from tfserving.bench.workload import Workload, WorkloadRequest
from tfserving.repository.warmup_records import read_warmup, unpack_requests
from tfserving.server.batching.parameters import read_parameters
from tfserving.tune.server_settings import Batching, ServerSettings
from tfserving.tune.trials import Objective
from tfserving.tune.tuning_files import write_settings
from tfserving.tune.tuning_report import TuningReport

WORKLOAD = Workload((WorkloadRequest("", b"", "", {"x": np.arange(6.0).reshape(3, 2)}),), "1 request")
BATCHING = Batching(8, 1000, 2, (3, 4, 8))


def write(directory, settings):
    write_settings(directory, settings, {"MODEL_NAME": "iris"}, "iris", WORKLOAD)


def test_the_script_starts_a_server_with_the_settings(tmp_path):
    (tmp_path / "models" / "iris" / "1").mkdir(parents=True)
    (tmp_path / "models" / "iris" / "1" / "saved_model.pb").touch()
    write(tmp_path, ServerSettings(BATCHING, intra_op_threads=1, grpc_max_threads=4))
    done = subprocess.run(
        ["bash", "run_tf_serving.sh", "--env-file", str(tmp_path / "settings.env"), "--dry-run"],
        cwd=ROOT,
        env={**os.environ, "ENGINE": "docker", "IMAGE_NAME": "tfserving-iris"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"source={tmp_path}/batching.config" in done.stdout
    for flag in ("--tensorflow_intra_op_parallelism=1", "--grpc_max_threads=4", "--enable_batching=true"):
        assert flag in done.stdout
    assert read_parameters(tmp_path / "batching.config").allowed_batch_sizes == (3, 4, 8)


def test_xla_is_a_variable_of_the_script(tmp_path):
    write(tmp_path, ServerSettings(auto_jit=True))
    assert "XLA=auto" in (tmp_path / "settings.env").read_text().splitlines()


def test_warmup_records_have_the_batch_sizes(tmp_path):
    write(tmp_path, ServerSettings(BATCHING))
    requests = [request for record in read_warmup(tmp_path) for request in unpack_requests(record)]
    assert [len(inputs["x"]) for _, inputs, _ in requests] == [3, 4, 8]
    assert requests[1][1]["x"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]


def test_default_settings_have_no_batching(tmp_path):
    write(tmp_path, ServerSettings(BATCHING))
    write(tmp_path, ServerSettings())
    assert not (tmp_path / "batching.config").exists()
    assert (tmp_path / "settings.env").read_text().splitlines()[1:] == ["MODEL_NAME=iris"]


def make_report(result, objective=Objective(False)):  # noqa: B008 - frozen
    return TuningReport(STUDY, "1 request", objective, 600.0, result)


def test_the_report_has_every_trial_and_the_default_beside_the_best(tmp_path):
    machine = FakeMachine()
    report = make_report(tune(machine, tmp_path / "trials"))
    values = json.loads(json.dumps(report.as_json()))
    assert len(values["trials"]) == len(machine.made)
    assert values["settings"]["batching"]["max_batch_size"] == 8
    (confirmation,) = values["confirmations"]
    assert confirmation["default"]["rates"] == [300.0] * 5
    assert confirmation["gain"] == pytest.approx(2.0)
    page = report.as_html()
    assert page.count("<tr>") == 1 + len(machine.made)
    assert page.count("<svg") == 2
    text = report.as_text()
    assert "throughput: 2.00 times that of the default (95 % interval: 2.00 to 2.00)" in text
    assert "default      300   100 ms    100 ms to 100 ms       5" in text


def test_the_report_has_the_reasons_of_failures(tmp_path):
    def model(settings):
        failure = "exited with code <255>" if settings.batching else ""
        return make_trial(settings, rate=0.0 if failure else 100.0, failure=failure)

    report = make_report(tune(FakeMachine(model), tmp_path / "trials"))
    assert "exited with code &lt;255&gt;" in report.as_html()
    assert report.as_text().splitlines()[4].startswith("keep the default settings: ")


def test_the_report_says_that_no_settings_keep_the_objective(tmp_path):
    result = tune(FakeMachine(), tmp_path / "trials", objective=Objective(False, 0.001))
    report = make_report(result, Objective(False, 0.001))
    assert "no settings keep the objective" in report.as_text()
    assert report.as_json()["settings"] is None
    assert report.as_html().count("<svg") == 1


def test_settings_survive_json():
    settings = ServerSettings(batching(), 1, 2, 3)
    assert ServerSettings.from_json(json.loads(json.dumps(settings.as_json()))) == settings
