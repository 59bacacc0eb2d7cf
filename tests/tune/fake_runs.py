"""Measurements that a function of the settings answers, on a clock that only they advance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tfserving.tune.search_space import SearchSpace
from tfserving.tune.server_settings import Batching, ServerSettings
from tfserving.tune.trials import Objective, Trial, TrialFile
from tfserving.tune.tuning import Tuning, TuningResult

# Seconds of a trial besides its measurement.
OVERHEAD = 5.0

STUDY = {"model": "fake", "version": 1, "engine": "embedded", "callers": 16, "api": "gRPC"}


def make_trial(settings: ServerSettings = ServerSettings(), **values: object) -> Trial:  # noqa: B008 - frozen
    found = {
        "phase": "search",
        "round": 0,
        "seconds": 1.0,
        "took": 2.0,
        "rate": 100.0,
        "p50": 0.01,
        "p99": 0.02,
    }
    return Trial(settings, **{**found, "requests": 100, **values})  # type: ignore[arg-type]


def batching(size: int = 16, timeout: int = 1000, threads: int = 2) -> Batching:
    return Batching(size, timeout, threads, (1, size))


def dense(settings: ServerSettings) -> Trial:
    """A model that gains from batches, most from those of 8 rows with a thread for each of 2 CPUs."""
    rate, p99 = 300.0, 0.100
    if settings.batching is not None:
        distance = abs(settings.batching.max_batch_size.bit_length() - (8).bit_length())
        rate = 600.0 - 60.0 * distance - 100.0 * abs(settings.batching.num_batch_threads - 2)
        rate -= settings.batching.batch_timeout_micros / 100
        p99 = 16 / rate * 1.5
    return make_trial(settings, rate=rate, p99=p99)


@dataclass
class FakeMachine:
    """Runs trials on a clock.

    Attributes:
        model: what the settings give.
        made: the trials that were run, in their order.
        stop_after: after so many trials, raise KeyboardInterrupt.
    """

    model: Callable[[ServerSettings], Trial] = dense
    made: list[Trial] = field(default_factory=list)
    stop_after: int | None = None
    now: float = 0.0

    def clock(self) -> float:
        return self.now

    def run(self, settings: ServerSettings, phase: str, number: int, seconds: float) -> Trial:
        if self.stop_after is not None and len(self.made) >= self.stop_after:
            raise KeyboardInterrupt
        self.now += OVERHEAD + 1.25 * seconds
        trial = replace(self.model(settings), phase=phase, round=number, seconds=seconds)
        self.made.append(trial)
        return trial


def make_space(**values: object) -> SearchSpace:
    found = {"cpus": 2, "concurrency": 16, "rows": (1, 1), "queues_requests": True}
    return SearchSpace(**{**found, **values})  # type: ignore[arg-type]


def tune(
    machine: FakeMachine,
    path,
    *,
    budget: float = 600.0,
    objective: Objective = Objective(False),  # noqa: B008 - frozen
    space: SearchSpace | None = None,
) -> TuningResult:
    file = TrialFile(path, STUDY)
    try:
        return Tuning(space or make_space(), objective, file, machine.run, budget, clock=machine.clock).tune()
    finally:
        file.close()
