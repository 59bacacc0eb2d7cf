"""The comparison of settings with the default at the end: several rounds of both, each on a new server."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tfserving.bench.quantiles import Interval
from tfserving.tune.search import TimeIsOverError
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trials import HEADROOM, Objective, Trial

# Student's t for 95 % by degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MOST_ROUNDS = len(_T) + 1

# Below so many rounds, the interval of p99 says nothing: for two, it is 13 times as wide as their difference.
_FEWEST_FOR_INTERVAL = 3

# Measures settings in a round of a phase.
RunRound = Callable[[ServerSettings, str, int], Trial]


@dataclass(frozen=True)
class Confirmation:
    """The rounds of settings and of the default, and what follows from them.

    Attributes:
        default, tuned: the trials of each, in the order of the rounds.
        refusal: why the settings are not used; "" if they are.
    """

    settings: ServerSettings
    default: Sequence[Trial]
    tuned: Sequence[Trial]
    refusal: str = ""

    @property
    def gain(self) -> float | None:
        """Throughput of the settings as a multiple of the default's; None without a valid round."""
        logs = self._log_ratios()
        return math.exp(statistics.mean(logs)) if logs else None

    @property
    def gain_interval(self) -> Interval | None:
        """Its 95 % confidence interval; None for fewer than two rounds."""
        interval = _mean_interval(self._log_ratios())
        return None if interval is None else Interval(math.exp(interval.low), math.exp(interval.high))

    def _log_ratios(self) -> list[float]:
        pairs = zip(self.default, self.tuned, strict=False)
        return [
            math.log(tuned.rate / default.rate) for default, tuned in pairs if default.rate and tuned.rate
        ]


def rate_of(trials: Sequence[Trial]) -> float | None:
    """The mean of the throughput."""
    rates = [trial.rate for trial in trials if trial.rate]
    return statistics.mean(rates) if rates else None


def p99_of(trials: Sequence[Trial]) -> tuple[float, Interval | None] | None:
    """The mean of p99 and its 95 % confidence interval; None for the interval of few rounds."""
    values = [trial.p99 for trial in trials if trial.rate]
    if not values:
        return None
    is_enough = len(values) >= _FEWEST_FOR_INTERVAL
    return statistics.mean(values), _mean_interval(values) if is_enough else None


def _mean_interval(values: Sequence[float]) -> Interval | None:
    if len(values) < 2:
        return None
    half = _T[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(statistics.mean(values) - half, statistics.mean(values) + half)


def confirm(
    settings: ServerSettings,
    default: ServerSettings,
    objective: Objective,
    run: RunRound,
    *,
    phase: str,
    rounds: int,
) -> Confirmation:
    """Compare settings with the default, until they break the objective, or rounds or time are over.

    The one that comes first changes from round to round, so that a machine that becomes slower or faster
    favors neither.

    Raises:
        TimeIsOverError: `run` raised it before both were measured once.
    """
    trials: dict[ServerSettings, list[Trial]] = {default: [], settings: []}
    try:
        for number in range(rounds):
            for each in (default, settings) if number % 2 == 0 else (settings, default):
                trials[each].append(run(each, phase, number))
            if violation := objective.violation(trials[settings][-1]):
                return Confirmation(settings, trials[default], trials[settings], violation)
    except TimeIsOverError:
        if not (trials[default] and trials[settings]):
            raise
    done = Confirmation(settings, trials[default], trials[settings])
    return Confirmation(settings, done.default, done.tuned, _refusal(done, objective))


def _refusal(done: Confirmation, objective: Objective) -> str:
    if len(done.tuned) < _FEWEST_FOR_INTERVAL:
        for number, trial in enumerate(done.tuned, 1):
            if violation := objective.violation(trial, HEADROOM):
                rounds = f"round {number} of only {len(done.tuned)}"
                return f"{violation} in {rounds}; a longer --budget makes more rounds"
    p99 = p99_of(done.tuned)
    limit = objective.p99_limit
    if limit is not None and p99 is not None and p99[1] is not None and p99[1].high > limit:
        return (
            f"p99 may exceed {limit * 1e3:g} ms: its 95 % interval is {p99[1].low * 1e3:.3g} to "
            f"{p99[1].high * 1e3:.3g} ms"
        )
    default = [trial for trial in done.default if not trial.failure]
    if any(objective.violation(trial) for trial in default):
        return ""  # any settings that keep the objective are better
    default_p99 = p99_of(done.default)
    if objective.is_latency:
        is_better = p99 is not None and default_p99 is not None and p99[0] < default_p99[0]
    else:
        is_better = done.gain is not None and done.gain > 1
    return "" if is_better else "not better than the default in the confirmation"
