"""Trials: the measurements of settings, what is better, and the file that keeps them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from tfserving.errors import FailedPreconditionError, InvalidInputError, RepositoryError
from tfserving.tune.server_settings import ServerSettings

# In the search, p99 must be below the limit by this share: the p99 of a short measurement is inexact.
HEADROOM = 0.1

_FORMAT = 1


@dataclass(frozen=True)
class Trial:
    """A measurement of settings. Times are in seconds, rates are requests per second.

    Attributes:
        settings: what was measured.
        phase: "search", or "confirm N" for the comparison of the Nth finalist with the default.
        round: number of the measurement of these settings in this phase.
        seconds: the length of the measurement.
        took: the time of all of it: start of the server, warm-up, measurement, stop.
        failure: why there are no figures; "" if there are.
        errors: failed requests by message.
        rate, p50, p99: of the successful requests.
        requests: their number with that of the failed ones.
        p99_interval: its 95 % confidence interval; None if there were too few requests.
    """

    settings: ServerSettings
    phase: str
    round: int
    seconds: float
    took: float
    failure: str = ""
    errors: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    p99_interval: tuple[float, float] | None = None

    @property
    def key(self) -> tuple[ServerSettings, str, int, float]:
        """What tells it from other trials: the settings, the phase, the round and the seconds."""
        return self.settings, self.phase, self.round, self.seconds

    def as_json(self) -> dict[str, Any]:
        """This as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        """The trial that `as_json` returned."""
        found = {**values, "settings": ServerSettings.from_json(values["settings"])}
        if found["p99_interval"] is not None:
            found["p99_interval"] = tuple(found["p99_interval"])
        return cls(**found)


@dataclass(frozen=True)
class Objective:
    """What is better.

    Attributes:
        is_latency: whether a low p99 is better, instead of a high throughput.
        p99_limit: in seconds; None for no limit.
    """

    is_latency: bool
    p99_limit: float | None = None

    def violation(self, trial: Trial, headroom: float = 0.0) -> str:
        """Why a trial does not count; "" if it does."""
        if trial.failure:
            return trial.failure
        if trial.errors:
            text, count = max(trial.errors.items(), key=lambda item: item[1])
            return f"{sum(trial.errors.values())} of {trial.requests} requests failed, {count} with {text}"
        if self.p99_limit is None or trial.p99 <= self.p99_limit * (1 - headroom):
            return ""
        limit = f"{self.p99_limit * 1e3:g} ms"
        if trial.p99 > self.p99_limit:
            return f"p99 {trial.p99 * 1e3:.3g} ms exceeds {limit}"
        return f"p99 {trial.p99 * 1e3:.3g} ms is within {headroom:.0%} of {limit}"

    def rank(self, trial: Trial) -> tuple[int, float]:
        """A key by which better trials come last: those that count, then those that are too slow."""
        if trial.failure or trial.errors:
            return 0, 0.0
        if self.violation(trial, HEADROOM):
            return 1, -trial.p99
        return 2, -trial.p99 if self.is_latency else trial.rate


class TrialFile:
    """A file with a line of JSON for each trial, which is on the disk when `append` returns.

    A line that a killed process did not finish is removed when the file is opened again.

    Args:
        path: the file; it is created if it does not exist.
        study: what all trials have in common, as JSON values.

    Raises:
        InvalidInputError: the trials in the file are of another study.
        FailedPreconditionError: another process has the file open.
        RepositoryError: the file is damaged or cannot be written.
    """

    def __init__(self, path: Path, study: Mapping[str, Any]) -> None:
        self._path = path
        self._study = {"format": _FORMAT, **study}
        self._trials: dict[tuple[ServerSettings, str, int, float], Trial] = {}
        try:
            self._file: IO[bytes] = open(path, "a+b")  # noqa: SIM115 - open until `close`
        except OSError as error:
            raise RepositoryError(
                f"cannot write {path}: {error.strerror}; pass another --out directory"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError as error:
            self._file.close()
            raise FailedPreconditionError(
                f"{path} is in use by another tfserving tune; wait for it, or pass another --out directory"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def trials(self) -> list[Trial]:
        """All trials in the order in which they were made."""
        return list(self._trials.values())

    def find(self, key: tuple[ServerSettings, str, int, float]) -> Trial | None:
        """The trial with this key, if there is one."""
        return self._trials.get(key)

    def append(self, trial: Trial) -> None:
        """Add a trial and write it."""
        self._write(trial.as_json())
        self._trials[trial.key] = trial

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        complete = content.rpartition(b"\n")[0]
        if len(complete) + 1 < len(content):
            self._file.truncate(len(complete) + 1 if complete else 0)
        lines = complete.splitlines()
        if not lines:
            self._write(self._study)
            return
        try:
            study, *trials = map(json.loads, lines)
            self._trials = {trial.key: trial for trial in map(Trial.from_json, trials)}
        except (ValueError, TypeError, KeyError) as error:
            raise RepositoryError(f"{self._path} is damaged: {error!r}; remove the file") from error
        if study != self._study:
            names = [name for name in self._study if study.get(name) != self._study[name]]
            changes = ", ".join(f"{name} {study.get(name)!r}, now {self._study[name]!r}" for name in names)
            raise InvalidInputError(
                f"{self._path} has trials of another tuning: {changes}; pass another --out directory, or "
                "remove the file"
            )

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
