"""promote --check and --observe: a version that differs or fails does not stay."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.release.conftest import CONFIG, Release
from tests.release.light_server import LIKE
from tfserving.errors import NotFoundError
from tfserving.release import observation
from tfserving.release.server_metrics import CallCounts, MetricsReading


def write_samples(release: Release) -> str:
    path = release.models.parent / "samples.npz"
    np.savez(path, x=np.float32([1.0, 2.0]))
    return str(path)


def like(release: Release, version: int, other: int) -> None:
    """Let a version return what another one does."""
    (release.models / "digits" / str(version) / LIKE).write_text(str(other))


def test_a_version_with_equal_outputs_is_promoted(release):
    release.serve(2)
    like(release, 2, 1)
    release.succeed("promote", "digits", "2", "--check", write_samples(release))
    assert release.available() == [[2], [2]]
    assert release.history[-1].result == "done"


def test_a_version_that_differs_is_never_loaded_as_the_model(release):
    release.serve(2)
    message = release.fail("promote", "digits", "2", "--check", write_samples(release))
    first = release.servers[0].address
    assert f"server {first}: versions 2 and 1 of model \"digits\" differ: output 'version'" in message
    assert release.config.read_text() == CONFIG
    for client in release.clients():
        assert [one.version for one in client.status("digits")] == [1]
        with pytest.raises(NotFoundError):
            client.infer([1.0], model="digits.check-2")


def test_a_loaded_version_is_compared_without_loading_it_again(release):
    release.serve()
    release.succeed("promote", "digits", "2")
    release.succeed("canary", "digits", "1")
    message = release.fail("promote", "digits", "1", "--check", write_samples(release))
    assert "versions 1 and 2" in message
    assert release.available() == [[2, 1]]


def test_check_needs_a_server_and_samples_that_fit(release):
    samples = write_samples(release)
    assert "--check compares versions on servers" in release.fail(
        "promote", "digits", "2", "--check", samples, status=2
    )
    release.serve()
    np.savez(samples, image=np.float32([1.0]))
    release.fail("promote", "digits", "2", "--check", samples, status=2)
    assert release.history == []


class Metrics:
    """Metrics of all servers: each reading has 30 calls of digits more, of which a share fails."""

    def __init__(self, failing: float = 0.0, seconds: float = 0.01, rejected: float = 0.0) -> None:
        self._failing = failing
        self._rejected = rejected
        self._seconds = seconds
        self.readings = 0

    def read(self, address: str) -> MetricsReading:
        self.readings += 1
        calls = 30.0 * self.readings
        done = calls * (1 - self._failing - self._rejected)
        buckets = {self._seconds: done, math.inf: done}
        counts = CallCounts(calls * self._failing, calls * self._rejected, buckets)
        return MetricsReading(float(self.readings), {("digits", ""): counts})


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch):
    def use(**options: float) -> Metrics:
        made = Metrics(**options)
        monkeypatch.setattr(observation, "read_metrics", made.read)
        return made

    return use


def test_good_metrics_keep_the_version(release, metrics):
    release.serve()
    metrics()
    outcome = release.succeed("promote", "digits", "2", "--observe", "0.1", "--max-error-rate", "0.01")
    assert "observed 30 calls of digits" in outcome.err or "calls of digits" in outcome.err
    assert release.available() == [[2]]


@pytest.mark.parametrize(
    ("options", "limit", "reason"),
    [
        ({"failing": 0.5}, ("--max-error-rate", "0.01"), "50.00% of 30 calls failed (limit 1.00%)"),
        ({"seconds": 0.2}, ("--max-p99-ms", "50"), "the p99 of 30 calls was 198 ms (limit 50 ms)"),
    ],
)
def test_bad_metrics_undo_the_promotion(release, metrics, options, limit, reason):
    release.serve()
    metrics(**options)
    message = release.fail("promote", "digits", "2", "--observe", "60", *limit)
    assert f'version 2 of model "digits": {reason}; the change was undone on every server' in message
    assert release.available() == [[1]]
    assert release.config.read_text() == CONFIG
    assert release.history[-1].result == "reverted"


def test_observe_needs_metrics(release):
    release.serve()
    message = release.fail("promote", "digits", "2", "--observe", "1", "--max-error-rate", "0")
    assert "--observe needs the metrics of server" in message
    assert release.history == []


def test_rejects_limits_with_their_unit(release, capsys):
    for option, unit in (
        ("--observe", "seconds"),
        ("--max-p99-ms", "milliseconds"),
        ("--timeout", "seconds"),
    ):
        with pytest.raises(SystemExit):
            release.run("promote", "digits", "2", option, "0")
        assert f"'0' is not a number of {unit} above 0, at most 1000000" in capsys.readouterr().err


def test_observe_needs_a_limit(release):
    with pytest.raises(SystemExit):
        release.run("promote", "digits", "2", "--observe", "1")


def test_calls_that_the_version_rejects_count_as_failures(release, metrics):
    release.serve()
    metrics(rejected=0.5)
    message = release.fail("promote", "digits", "2", "--observe", "60", "--max-error-rate", "0.4")
    assert "50.00% of 30 calls failed (limit 40.00%)" in message
