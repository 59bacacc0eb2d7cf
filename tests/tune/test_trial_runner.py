"""A trial: what is sent to the server that an engine starts, and what is recorded."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from tests.tune.fake_runs import batching
from tfserving.bench import measurement
from tfserving.bench.workload import WorkloadFactory
from tfserving.errors import FailedPreconditionError, InvalidInputError
from tfserving.tune.engines import RunningServer
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trial_runner import TrialRunner, VersionChangedError
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import signatures_of


class FakeEngine:
    """An engine whose servers run already, or fail to start."""

    queues_requests = True

    def __init__(self, address: str, failure: str = "", exit_reason: str = "") -> None:
        self._server = RunningServer(address, address, lambda: exit_reason)
        self._failure = failure
        self.running = 0

    @contextmanager
    def start(self, settings: ServerSettings):
        if self._failure:
            raise FailedPreconditionError(self._failure)
        self.running += 1
        try:
            yield self._server
        finally:
            self.running -= 1


@pytest.fixture
def unlimited(monkeypatch):
    """No result is refused, however busy the machine is."""
    monkeypatch.setattr(measurement, "refusal", lambda result: "")


@pytest.fixture
def run(service, rpc_server, rest_server):
    """Runs one trial of settings of the model "half"."""

    def run_trial(settings=ServerSettings(), *, is_grpc=True, version=2, **engine):  # noqa: B008 - frozen
        address = rpc_server.address if is_grpc else rest_server.address
        signatures = signatures_of(service.models["half"][2].signatures)
        workload = WorkloadFactory(ModelSpec("half"), signatures, is_grpc=is_grpc).from_signature({}, None)
        fake = FakeEngine(address, **engine)
        runner = TrialRunner(
            fake, "half", version, workload, is_grpc=is_grpc, concurrency=2, start_timeout=1.0
        )
        try:
            return runner.run(settings, "search", 0, 0.3)
        finally:
            assert fake.running == 0

    return run_trial


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("is_grpc", [True, False])
def test_a_trial_has_the_figures_of_the_load(run, is_grpc):
    trial = run(is_grpc=is_grpc)
    assert not trial.failure
    assert trial.rate > 0
    assert 0 < trial.p50 <= trial.p99
    assert trial.took > 0.3


@pytest.mark.usefixtures("unlimited")
def test_each_batch_size_is_warmed_up(run, service):
    seen = []
    function = service.models["half"][2].functions["serving_default"]

    def record(inputs):
        seen.append(len(inputs["x"]))
        return function(inputs)

    service.models["half"][2].functions["serving_default"] = record
    run(ServerSettings(batching(size=8)))
    assert seen[:2] == [1, 8]
    assert set(seen[2:]) == {1}


def test_a_server_that_does_not_start_is_a_failed_trial(run):
    assert run(failure="no GPU").failure == "no GPU"


def test_a_server_that_exits_is_a_failed_trial(run):
    assert run(exit_reason="exited with code 255").failure == "exited with code 255"


def test_a_request_that_fails_is_a_failed_trial(run, service):
    def reject(method):
        if "Predict" in method:
            raise InvalidInputError("batch is too large")

    service.before = reject
    assert "batch is too large" in run().failure


def test_a_refused_measurement_is_repeated_and_then_a_failed_trial(run, monkeypatch):
    refusals = []
    monkeypatch.setattr(measurement, "refusal", lambda result: refusals.append(1) or "the generator was busy")
    assert run().failure == "the generator was busy"
    assert len(refusals) == 2


def test_another_version_is_an_error(run):
    with pytest.raises(VersionChangedError, match="version 2 of half has appeared"):
        run(version=1)


def test_a_model_that_does_not_become_available_is_a_failed_trial(run, service):
    service.models["half"][2].state = 20
    service.models["half"][1].state = 20
    assert "not available within 1 s" in run().failure


def test_warmup_repeats_the_rows_of_the_request():
    from tfserving.tune.trial_runner import repeat_rows

    repeated = repeat_rows({"x": np.array([1, 2, 3])}, 5)
    assert repeated["x"].tolist() == [1, 2, 3, 1, 2]
