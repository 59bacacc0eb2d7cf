"""Measures levels of load: a number of callers in a closed loop, or requests per second in an open loop."""

from __future__ import annotations

import math
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tfserving.bench.load_connection import LoadTarget
from tfserving.bench.load_loop import LoadPlan, LoadReport
from tfserving.bench.load_process import LoadProcesses
from tfserving.bench.quantiles import Interval, quantile, quantile_interval, rate_interval
from tfserving.errors import InvalidInputError, error_class_for
from tfserving.wire.dtypes import Array

# The quantiles of the latency that a result has.
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
# Share of the time in which a loop does not wait: above it, requests wait for the loop.
BUSY_LIMIT = 0.8
# Share above which more processes are started, if there may be more.
_MORE_PROCESSES = 0.5
# Each time that a process has something to do, it may wait for a CPU (mean) by this share of the median of
# the latency, or by so many seconds.
DELAY_SHARE, DELAY_SECONDS = 0.1, 0.0001
# Sends may be late (p99) by this share of the p99 of the latency, or by so many seconds.
LAG_SHARE, LAG_SECONDS = 0.1, 0.001
# An open loop has at most so many connections in all.
_MOST_CONNECTIONS = 256
# Open files of a process besides its connections.
_OTHER_FILES = 64
# Seconds to measure at least, and between two checks of the precision.
_SHORTEST, _CHECK = 2.0, 0.5


@dataclass(frozen=True)
class LoadLevel:
    """A number of callers (`rate` is None), or requests per second."""

    concurrency: int | None = None
    rate: float | None = None

    @property
    def label(self) -> str:
        """For people: "concurrency 4" or "rate 100"."""
        return f"concurrency {self.concurrency}" if self.rate is None else f"rate {self.rate:g}"


@dataclass(frozen=True)
class MeasurementOptions:
    """How to measure.

    Attributes:
        warmup: seconds of load before the measurement.
        duration: seconds after which the measurement ends, however exact it is.
        precision: half of the width of the interval of p99, as a share of p99, at which it ends.
        timeout: seconds for a request.
        is_poisson: in an open loop, random times between requests instead of equal ones.
        processes: of the load generator; None to start more when one is too busy, at most one per CPU.
        seed: for random times.
    """

    warmup: float = 2.0
    duration: float = 30.0
    precision: float = 0.1
    timeout: float = 60.0
    is_poisson: bool = True
    processes: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class LoadProgress:
    """An intermediate result.

    Attributes:
        phase: "warm-up", "measuring" or "finishing".
        seconds: since the begin of the phase.
        rate: successful requests per second.
        errors: the number of failed requests.
        p99: in seconds; None without a successful request.
        interval: of p99.
    """

    level: LoadLevel
    phase: str
    seconds: float
    rate: float = 0.0
    errors: int = 0
    p99: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class GeneratorUsage:
    """What the load generator used.

    Attributes:
        processes, connections: their number.
        busy: share of the time in which the loop of the busiest process did not wait.
        cpu: CPUs that all processes used together.
        delay: mean of the seconds for which a process waited for a CPU when it had something to do.
        lag: p99 of the seconds by which sends were late, in an open loop.
    """

    processes: int
    connections: int
    busy: float
    cpu: float
    delay: float
    lag: float


@dataclass(frozen=True)
class LevelResult:
    """The result of a level. Times are in seconds, rates are per second.

    Attributes:
        start: of the measurement, on the monotonic clock.
        seconds: how long it took.
        requests: the number of requests that were due in that time.
        errors: their failures by message.
        rate: successful responses per second.
        latencies: of successful requests, in the order in which they were due.
        due: when they were due, since the start.
        failed: when the failed requests were due, since the start.
        refused: why the figures say nothing about the server; "" if they do.
        notes: what else to know about the figures.
    """

    level: LoadLevel
    start: float
    seconds: float
    requests: int
    errors: Mapping[str, int]
    rate: float
    rate_interval: Interval | None
    p99_interval: Interval | None
    latencies: Array = field(repr=False)
    due: Array = field(repr=False)
    failed: Array = field(repr=False)
    usage: GeneratorUsage
    refused: str = ""
    notes: tuple[str, ...] = ()

    def quantile(self, q: float) -> float:
        """A quantile of the latencies; NaN without a successful request."""
        return quantile(self.latencies, q) if len(self.latencies) else math.nan

    @property
    def error_share(self) -> float:
        """Failed requests as a share of all."""
        return sum(self.errors.values()) / self.requests if self.requests else 0.0


def measure(
    targets: Sequence[LoadTarget],
    is_grpc: bool,
    requests: Sequence[tuple[str, bytes]],
    level: LoadLevel,
    options: MeasurementOptions,
    on_progress: Callable[[LoadProgress], None] = lambda progress: None,
) -> LevelResult:
    """Measure a level; repeat with more processes if one is too busy and the options allow it.

    Raises:
        TfServingError: every request of the warm-up failed.
        FailedPreconditionError: a load process does not run.
        InvalidInputError: there are more connections than open files are allowed.
    """
    count = options.processes or 1
    most = options.processes or available_cpus()
    if level.concurrency is not None:
        most = min(most, level.concurrency)
        count = min(count, most)
    plan = LoadPlan(
        tuple(targets),
        is_grpc,
        tuple(requests),
        level.concurrency or _MOST_CONNECTIONS,
        level.rate,
        options.is_poisson,
        options.timeout,
        options.seed,
    )
    while True:
        _check_open_files(plan.connections // count)
        measurement = _Measurement(level, options, on_progress)
        with LoadProcesses(split_plan(plan, count)) as processes:
            measurement.warm_up(processes)
            if count < most and measurement.busiest > _MORE_PROCESSES:
                count = min(most, 2 * count)
                continue
            return measurement.run(processes)


def _check_open_files(connections: int) -> None:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and connections + _OTHER_FILES > limit:
        raise InvalidInputError(
            f"{connections} connections in a process exceed its limit of {limit} open files; use a lower "
            "--concurrency, more --processes, or raise the limit with ulimit -Hn"
        )


def available_cpus() -> int:
    """The number of CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def split_plan(plan: LoadPlan, count: int) -> list[LoadPlan]:
    """Plans for `count` processes that send together what the plan says."""
    return [
        replace(
            plan,
            connections=max(1, plan.connections // count + (number < plan.connections % count)),
            rate=None if plan.rate is None else plan.rate / count,
            seed=plan.seed + number,
        )
        for number in range(count)
    ]


class _Measurement:
    """Collects the reports of load processes."""

    def __init__(
        self,
        level: LoadLevel,
        options: MeasurementOptions,
        on_progress: Callable[[LoadProgress], None],
    ) -> None:
        self._level = level
        self._options = options
        self._on_progress = on_progress
        self._reports: list[tuple[int, LoadReport]] = []
        self._start = time.monotonic()

    def warm_up(self, processes: LoadProcesses) -> None:
        """Wait until the warm-up is over; raise an error if all of its requests failed."""
        self._collect(processes.wait_until_started())
        begin = time.monotonic()
        end = begin + self._options.warmup
        while (now := time.monotonic()) < end or not self._has_response(now - begin):
            self._collect(processes.collect(min(_CHECK, max(0.05, end - now))))
            processes.check()
            self._on_progress(LoadProgress(self._level, "warm-up", time.monotonic() - begin))
        outcomes = self._samples(-math.inf, math.inf).outcomes
        if outcomes and not outcomes[""]:
            text, number = outcomes.most_common(1)[0]
            code = text.partition(":")[0]
            raise error_class_for(code)(
                f"all {outcomes.total()} requests of the warm-up failed, {number} with {text}", code=code
            )
        self._start = time.monotonic()

    @property
    def busiest(self) -> float:
        """The share of the time in which the loop of the busiest process did not wait, so far."""
        return _busiest(self._reports)

    def run(self, processes: LoadProcesses) -> LevelResult:
        """Measure until the result is exact enough or the time is over."""
        options, start = self._options, self._start
        self._reports = []
        while True:
            seconds = time.monotonic() - start
            # a check takes longer the more samples there are
            pause = max(_CHECK, seconds / 10)
            self._collect(processes.collect(min(pause, options.duration - seconds)))
            processes.check()
            seconds = time.monotonic() - start
            progress = self._progress("measuring", seconds)
            self._on_progress(progress)
            is_exact = (
                progress.interval is not None
                and progress.p99 is not None
                and progress.interval.half_width(progress.p99) <= options.precision
            )
            if seconds >= options.duration or (is_exact and seconds >= _SHORTEST):
                break
        end = time.monotonic()
        during = list(self._reports)
        for reports in processes.stop():
            self._collect(reports)
            self._on_progress(self._progress("finishing", time.monotonic() - end))
        return self._result(start, end, during)

    def _collect(self, reports: Iterable[tuple[int, LoadReport]]) -> None:
        self._reports += reports

    def _has_response(self, seconds: float) -> bool:
        """Whether a request is complete, or has had the time to be."""
        return seconds > self._options.timeout + 1 or any(report.samples for _, report in self._reports)

    def _samples(self, start: float, end: float) -> _Samples:
        return _Samples(self._reports, start, end)

    def _progress(self, phase: str, seconds: float) -> LoadProgress:
        samples = self._samples(self._start, math.inf)
        latencies = samples.latencies
        return LoadProgress(
            self._level,
            phase,
            seconds,
            rate=len(latencies) / seconds if phase == "measuring" and seconds else 0.0,
            errors=len(samples.failed),
            p99=quantile(latencies, 0.99) if len(latencies) else None,
            interval=quantile_interval(latencies, 0.99),
        )

    def _result(self, start: float, end: float, during: list[tuple[int, LoadReport]]) -> LevelResult:
        samples = self._samples(start, end)
        completed = self._samples(-math.inf, math.inf).completed
        completed = completed[(completed >= start) & (completed < end)]
        latencies = samples.latencies
        errors = {text: number for text, number in samples.outcomes.most_common() if text}
        usage = _usage(during, samples.lags if self._level.rate is not None else np.zeros(0))
        result = LevelResult(
            level=self._level,
            start=start,
            seconds=end - start,
            requests=samples.outcomes.total(),
            errors=errors,
            rate=len(completed) / (end - start),
            rate_interval=rate_interval(completed, start, end),
            p99_interval=quantile_interval(latencies, 0.99),
            latencies=latencies,
            due=samples.due - start,
            failed=samples.failed - start,
            usage=usage,
        )
        if refused := refusal(result):
            return replace(result, refused=refused)
        return replace(result, notes=tuple(_notes(result, self._options)))


def refusal(result: LevelResult) -> str:
    """Why the load generator, and not the server, determined the figures; "" if it did not."""
    usage = result.usage
    hint = "use idle CPUs or another machine for the load, or less load"
    if usage.busy > BUSY_LIMIT:
        return (
            f"the load generator was busy {usage.busy:.0%} of the time (limit {BUSY_LIMIT:.0%}); {hint}, or "
            "more --processes"
        )
    if not len(result.latencies):
        return ""
    limit = max(DELAY_SECONDS, DELAY_SHARE * result.quantile(0.5))
    if usage.delay > limit:
        return (
            f"the load generator waited {usage.delay * 1e3:.2g} ms for a CPU each time that it had something "
            f"to do (limit {limit * 1e3:.2g} ms); {hint}"
        )
    limit = max(LAG_SECONDS, LAG_SHARE * result.quantile(0.99))
    if usage.lag > limit:
        return (
            f"the load generator sent 1 % of the requests {usage.lag * 1e3:.2g} ms late or more (limit "
            f"{limit * 1e3:.2g} ms); {hint}"
        )
    return ""


def _notes(result: LevelResult, options: MeasurementOptions) -> Iterable[str]:
    offered = result.level.rate
    if result.errors:
        text, number = next(iter(result.errors.items()))
        yield f"{sum(result.errors.values())} of {result.requests} requests failed, {number} with {text}"
    if offered is not None and result.rate * result.seconds < 0.95 * result.requests and not result.errors:
        yield f"the server did not keep up with {offered:g} calls/s"
    if not len(result.latencies):
        return
    if result.p99_interval is None:
        yield (
            f"{len(result.latencies)} responses are too few for the interval of p99 (2000 are needed); "
            "increase --duration"
        )
    elif result.p99_interval.half_width(result.quantile(0.99)) > options.precision:
        yield f"p99 is less exact than ±{options.precision:.0%}; increase --duration"


class _Samples:
    """The requests in reports that were due from `start` until before `end`, in the order of that time.

    Attributes:
        due, latencies: of successful requests.
        completed: when their responses were complete.
        lags: how late the loop noticed that requests were due, of all requests.
        failed: when the failed requests were due.
        outcomes: number by message, "" for success.
    """

    def __init__(self, reports: list[tuple[int, LoadReport]], start: float, end: float) -> None:
        texts: dict[int, tuple[str, ...]] = dict.fromkeys({number for number, _ in reports}, ())
        parts: dict[int, list[bytes]] = {number: [] for number in texts}
        for number, report in reports:
            texts[number] = report.outcomes
            parts[number].append(report.samples)
        self.outcomes: Counter[str] = Counter()
        found: list[Array] = [np.empty((0, 4))]
        for number, chunks in parts.items():
            rows: Array = np.frombuffer(b"".join(chunks)).reshape(-1, 4)
            rows = rows[(rows[:, 0] >= start) & (rows[:, 0] < end)]
            found.append(rows)
            for code, count in enumerate(np.bincount(rows[:, 3].astype(int), minlength=1)):
                if count:
                    self.outcomes[texts[number][code]] += int(count)
        rows = np.concatenate(found)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        is_success = rows[:, 3] == 0
        self.failed = rows[~is_success, 0]
        self.lags = rows[:, 1] - rows[:, 0]
        rows = rows[is_success]
        self.due, self.completed = rows[:, 0], rows[:, 2]
        self.latencies = rows[:, 2] - rows[:, 0]


def _usage(reports: list[tuple[int, LoadReport]], lags: Array) -> GeneratorUsage:
    numbers = {number for number, _ in reports}
    wall = sum(report.end - report.start for _, report in reports)
    return GeneratorUsage(
        processes=len(numbers),
        connections=sum(
            max(report.connections for each, report in reports if each == number) for number in numbers
        ),
        busy=_busiest(reports),
        cpu=sum(report.cpu for _, report in reports) / wall * len(numbers) if wall else 0.0,
        delay=sum(report.delayed for _, report in reports)
        / max(1, sum(report.wakeups for _, report in reports)),
        lag=quantile(lags, 0.99) if len(lags) else 0.0,
    )


def _busiest(reports: list[tuple[int, LoadReport]]) -> float:
    waited: dict[int, float] = {}
    times: dict[int, float] = {}
    for number, report in reports:
        times[number] = times.get(number, 0.0) + report.end - report.start
        waited[number] = waited.get(number, 0.0) + report.waited
    return max((1 - waited[number] / times[number] for number in times if times[number]), default=0.0)
