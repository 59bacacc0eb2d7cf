"""The history of changes: one line of JSON per change in MODELS_DIR/.history.jsonl, never rewritten."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfserving.errors import ConfigError, RepositoryError

FILE_NAME = ".history.jsonl"

# Results of a change.
DONE = "done"
REVERTED = "reverted"
UNDONE = "undone"
ABANDONED = "abandoned"


@dataclass(frozen=True)
class ModelState:
    """What a models.config says about one model.

    Attributes:
        versions: the versions that its policy selects on disk, in ascending order.
        labels: versions by label.
        promoted: the version that callers without version or label are meant to get; None without versions.
    """

    versions: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    promoted: int | None = None


@dataclass(frozen=True)
class HistoryRecord:
    """One change.

    Attributes:
        id: unique for each change.
        time: when it ended, UTC in ISO 8601.
        user: who made it.
        command: the command line.
        message: the text of --message.
        operation: "promote", "rollback", "canary", "label", "add", "remove" or "prune".
        model: the model that was changed.
        before, after: the states of the model; None where the config does not contain it. `after` is what the
            change was meant to reach, whatever its result.
        diff: how the change edits models.config, a unified diff.
        servers: the servers that it was applied to, as "name (host:port)" or "host:port".
        result: `DONE`; `REVERTED`: it failed, and the command went back; `UNDONE`: it was interrupted, and
            the next command went back; `ABANDONED`: it was interrupted, and models.config was then edited.
        reason: why, unless the result is `DONE`.
    """

    id: str
    time: str
    user: str
    command: str
    message: str
    operation: str
    model: str
    before: ModelState | None
    after: ModelState | None
    diff: str
    servers: tuple[str, ...]
    result: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """This as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> HistoryRecord:
        """From a JSON object; members that this version does not know are ignored.

        Raises:
            KeyError, TypeError: it is not a record.
        """
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        known["before"], known["after"] = (_read_state(document[name]) for name in ("before", "after"))
        known["servers"] = tuple(document["servers"])
        return cls(**known)


class History:
    """The history of a model repository.

    Args:
        models_dir: the model repository.
    """

    def __init__(self, models_dir: Path) -> None:
        self.path = models_dir / FILE_NAME

    def read(self) -> list[HistoryRecord]:
        """The records in the order of the changes; without the last line if its writer was killed.

        Raises:
            ConfigError: a line is not a record.
            RepositoryError: the file is not readable.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RepositoryError(f"cannot read {self.path}: {error.strerror}") from error
        records = []
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            try:
                records.append(HistoryRecord.from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"{self.path}:{number}: not a record of a change ({error}); restore the line or remove it"
                ) from error
        return records

    def check_writable(self) -> None:
        """Create the file if necessary, so that a change which cannot be recorded does not begin.

        Raises:
            RepositoryError: the file is not writable.
        """
        try:
            os.close(self._open())
        except OSError as error:
            raise RepositoryError(
                f"cannot write {self.path}: {error.strerror}; nothing was changed; make the model repository "
                "writable for you, or pass another one with --models-dir"
            ) from error

    def append(self, record: HistoryRecord) -> None:
        """Add a line and sync it to disk.

        Raises:
            OSError: it cannot be written; the file is as before.
        """
        line = json.dumps(record.to_json(), ensure_ascii=True).encode() + b"\n"
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # another models.config may have the same repository
            size = _complete_size(descriptor)
            os.ftruncate(descriptor, size)  # the part of a line whose writer was killed
            try:
                written = 0
                while written < len(line):
                    written += os.pwrite(descriptor, line[written:], size + written)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def find_rollback_target(records: list[HistoryRecord], model: str, current: int | None) -> int | None:
    """The version that was promoted before the current one; None if the history has none.

    A rollback forgets the version that it leaves, so that a second rollback goes one step further back.
    """
    promoted: list[int] = []
    for record in records:
        if record.model != model or record.result != DONE:
            continue
        if record.operation in ("add", "remove"):
            promoted.clear()
        for state in (record.before, record.after):
            version = state.promoted if state else None
            if version is None:
                continue
            if record.operation == "rollback" and state is record.after and version in promoted:
                while promoted[-1] != version:
                    promoted.pop()
            elif not promoted or promoted[-1] != version:
                promoted.append(version)
    while promoted and promoted[-1] == current:
        promoted.pop()
    return promoted[-1] if promoted else None


def _read_state(document: Mapping[str, Any] | None) -> ModelState | None:
    if document is None:
        return None
    return ModelState(tuple(document["versions"]), dict(document["labels"]), document["promoted"])


def _complete_size(descriptor: int) -> int:
    """The offset behind the last line break."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 4096)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
