"""The search: successive halving, then steps from the best settings to better neighbors.

All candidates are measured briefly, a third of them for twice as long, a third of those for four times as
long. What is left of the time goes to settings that differ from the best ones in one value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tfserving.tune.search_space import SearchSpace
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trials import Objective, Trial

# Each round takes this share of the settings of the last one, and measures them this times longer.
_KEPT, _LONGER = 1 / 3, 2
ROUNDS = (1, _LONGER, _LONGER**2)
# Settings that are kept at least.
_FEWEST = 2


class TimeIsOverError(Exception):
    """There is no time for another trial."""


def group_sizes(first: int) -> list[int]:
    """The number of settings in each round, if the first one has so many."""
    sizes = [first]
    for _ in ROUNDS[1:]:
        sizes.append(min(sizes[-1], max(_FEWEST, round(sizes[-1] * _KEPT))))
    return sizes


def search(
    space: SearchSpace,
    objective: Objective,
    run: Callable[[ServerSettings, float], Trial],
    *,
    seconds: float,
    first: int,
) -> list[Trial]:
    """The longest trial of each settings that kept the objective: the longest ones first, of those the best.

    The speed of a machine drifts. Trials of the same length were made closer to each other in time than
    others, so a short one is not compared with a long one.

    Args:
        space: the settings to try.
        objective: what is better.
        run: measures settings for some seconds; raises TimeIsOverError if there is no time for that.
        seconds: the length of a trial in the first round.
        first: number of settings in the first round, the default among them.
    """
    trials: dict[ServerSettings, Trial] = {}

    def measure(settings: ServerSettings, length: float) -> Trial:
        trials[settings] = run(settings, length)
        return trials[settings]

    try:
        group = [space.default, *space.candidates()][:first]
        for size, factor in zip(group_sizes(len(group)), ROUNDS, strict=True):
            group = group[:size]
            made = [measure(settings, seconds * factor) for settings in group]
            group = [trial.settings for trial in _best_first(objective, made)]
        _climb(space, objective, measure, trials, trials[group[0]])
    except TimeIsOverError:
        pass
    kept = [trial for trial in _best_first(objective, trials.values()) if not objective.violation(trial)]
    return sorted(kept, key=lambda trial: trial.seconds, reverse=True)


def _climb(
    space: SearchSpace,
    objective: Objective,
    measure: Callable[[ServerSettings, float], Trial],
    trials: dict[ServerSettings, Trial],
    best: Trial,
) -> None:
    """Go from the best trial of the last round to a better neighbor as long as there is one."""
    while True:
        for settings in space.neighbors(best.settings):
            if settings in trials:
                continue
            if objective.rank(measure(settings, best.seconds / _LONGER)) <= objective.rank(best):
                continue
            trial = measure(settings, best.seconds)
            if objective.rank(trial) > objective.rank(best):
                best = trial
                break
        else:
            return


def _best_first(objective: Objective, trials: Iterable[Trial]) -> list[Trial]:
    return sorted(trials, key=objective.rank, reverse=True)
