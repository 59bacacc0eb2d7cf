"""Tuning within a budget of time: the default, the search, and the confirmation of the best settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tfserving.errors import FailedPreconditionError, InvalidInputError
from tfserving.tune.confirmation import Confirmation, confirm
from tfserving.tune.search import ROUNDS, TimeIsOverError, group_sizes, search
from tfserving.tune.search_space import SearchSpace
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trial_runner import WARMUP_SHARE
from tfserving.tune.trials import Objective, Trial, TrialFile

# The shortest trials of the search take this share of the budget, within limits in seconds.
_TRIAL_SHARE, _TRIAL_SHORTEST, _TRIAL_LONGEST = 1 / 150, 1.0, 5.0
# A round of the confirmation is so many times as long.
_CONFIRM_LONGER = 2
# Share of the budget for the confirmation, and its rounds at most. A second finalist needs more time.
_CONFIRM_SHARE, _CONFIRM_ROUNDS = 0.3, 5
# Share of their time that is added: trials may take longer than the first one.
_CONFIRM_SLACK = 0.05
# Share of the time of the search for successive halving; the rest is for neighbors.
_HALVING_SHARE = 0.7
# The default is measured so often if the load generator was the limit.
_DEFAULT_ATTEMPTS = 3
# Finalists to confirm at most.
_FINALISTS = 3


@dataclass(frozen=True)
class TuningResult:
    """What was found.

    Attributes:
        settings: the best settings that were confirmed, else the default; None if it breaks the objective.
        reason: why these.
        confirmations: of each finalist, in the order in which they were compared with the default.
        trials: all of them.
        seconds: that all of them took.
    """

    settings: ServerSettings | None
    reason: str
    confirmations: Sequence[Confirmation]
    trials: Sequence[Trial]
    seconds: float

    @property
    def confirmed(self) -> Confirmation | None:
        """That of the settings; None if the default is kept."""
        return next((each for each in self.confirmations if not each.refusal), None)


class Tuning:
    """A search within a budget, and the confirmation of what it finds.

    A trial that is in the file is not repeated, so the same call continues what was interrupted. The time
    that it took counts.

    Args:
        space: the settings to try.
        objective: what is better.
        file: where trials are kept.
        run: measures settings: see `TrialRunner.run`.
        budget: seconds for everything.
        on_trial: called with each trial that was made, and with the seconds of the budget that are used.
        clock: seconds.
    """

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        file: TrialFile,
        run: Callable[[ServerSettings, str, int, float], Trial],
        budget: float,
        on_trial: Callable[[Trial, float], None] = lambda trial, used: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._space = space
        self._objective = objective
        self._file = file
        self._run = run
        self._budget = budget
        self._on_trial = on_trial
        self._clock = clock
        self._seconds = min(max(budget * _TRIAL_SHARE, _TRIAL_SHORTEST), _TRIAL_LONGEST)
        if file.trials:  # made with another budget, perhaps
            self._seconds = file.trials[0].seconds
        self._used_before = sum(trial.took for trial in file.trials)
        self._began = clock()
        # Seconds of a trial besides its measurement; known when the default has been measured.
        self._overhead = 0.0
        self._reserved = 0.0
        self._default_round = 0

    def tune(self) -> TuningResult:
        """Measure, search and confirm.

        Raises:
            FailedPreconditionError: the default cannot be measured.
        """
        default = self._measure_default()
        self._default_round = default.round
        self._overhead = max(0.0, default.took - default.seconds * (1 + WARMUP_SHARE))
        rounds = self._plan_rounds()
        pair = 2 * self._cost(_CONFIRM_LONGER * self._seconds)
        self._reserved = rounds * pair * (1 + _CONFIRM_SLACK)
        finalists = search(
            self._space, self._objective, self._search_trial, seconds=self._seconds, first=self._plan_first()
        )
        self._reserved = 0.0
        return self._confirm_best(finalists, rounds, default)

    @property
    def used(self) -> float:
        """Seconds of the budget that are used."""
        return self._used_before + self._clock() - self._began

    def _measure_default(self) -> Trial:
        for number in range(_DEFAULT_ATTEMPTS):
            try:
                trial = self._trial(self._space.default, "search", number, self._seconds)
            except TimeIsOverError as error:
                raise InvalidInputError(
                    f"--budget {self._budget:g}s is too short to measure the default settings; increase it"
                ) from error
            if not trial.failure:
                return trial
        raise FailedPreconditionError(f"the default settings cannot be measured: {trial.failure}")

    def _plan_rounds(self) -> int:
        pair = 2 * self._cost(_CONFIRM_LONGER * self._seconds)
        return min(_CONFIRM_ROUNDS, max(1, int(_CONFIRM_SHARE * self._budget / pair)))

    def _plan_first(self) -> int:
        """The number of settings in the first round of the search."""
        first, most = 1, len(self._space.candidates()) + 1
        time_for_halving = _HALVING_SHARE * (self._budget - self._reserved)
        while first < most and self._halving_cost(first + 1) <= time_for_halving:
            first += 1
        return max(2, first)

    def _halving_cost(self, first: int) -> float:
        sizes = zip(group_sizes(first), ROUNDS, strict=True)
        return sum(size * self._cost(self._seconds * factor) for size, factor in sizes)

    def _cost(self, seconds: float) -> float:
        """The time of a trial."""
        return self._overhead + seconds * (1 + WARMUP_SHARE)

    def _search_trial(self, settings: ServerSettings, seconds: float) -> Trial:
        is_first = settings == self._space.default and seconds == self._seconds
        return self._trial(settings, "search", self._default_round if is_first else 0, seconds)

    def _trial(self, settings: ServerSettings, phase: str, number: int, seconds: float) -> Trial:
        """Take a trial from the file, or make it.

        Raises:
            TimeIsOverError: there is no time for it.
        """
        if found := self._file.find((settings, phase, number, seconds)):
            return found
        if self.used + self._cost(seconds) > self._budget - self._reserved:
            raise TimeIsOverError
        began = self._clock()
        # from when it was asked for, so that all of the time is accounted for
        trial = replace(self._run(settings, phase, number, seconds), took=self._clock() - began)
        self._file.append(trial)
        self._on_trial(trial, self.used)
        return trial

    def _confirm_best(self, finalists: Sequence[Trial], rounds: int, default: Trial) -> TuningResult:
        confirmations: list[Confirmation] = []
        violation = self._objective.violation(default)
        others = [trial for trial in finalists if trial.settings != self._space.default]
        reason = "no other settings kept the objective"
        if all(trial.settings == self._space.default for trial in self._file.trials):
            reason = (
                f"a trial takes {default.took:.0f} s, so the budget of {self._budget:.0f} s is too short for "
                "others; increase --budget"
            )
        for number, trial in enumerate(others[:_FINALISTS], 1):
            try:
                done = confirm(
                    trial.settings,
                    self._space.default,
                    self._objective,
                    self._confirm_trial,
                    phase=f"confirm {number}",
                    rounds=rounds,
                )
            except TimeIsOverError:
                if confirmations:
                    break
                reason = (
                    "the budget was too short to compare other settings with the default; increase --budget"
                )
                break
            confirmations.append(done)
            if not done.refusal:
                return self._result(done.settings, "the best settings that were confirmed", confirmations)
            reason = "no other settings passed the confirmation"
        if violation:
            return self._result(
                None, f"{reason}, and the default breaks the objective: {violation}", confirmations
            )
        return self._result(self._space.default, reason, confirmations)

    def _confirm_trial(self, settings: ServerSettings, phase: str, number: int) -> Trial:
        return self._trial(settings, phase, number, _CONFIRM_LONGER * self._seconds)

    def _result(
        self, settings: ServerSettings | None, reason: str, confirmations: Sequence[Confirmation]
    ) -> TuningResult:
        trials = self._file.trials
        return TuningResult(settings, reason, confirmations, trials, sum(trial.took for trial in trials))
