"""What may answer a call: which versions are wanted of a model, now and while that changes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from tfserving.wire.model_spec import ModelSpec

REFUSALS = ("NOT_FOUND", "INVALID_ARGUMENT")


@dataclass(frozen=True)
class Wish:
    """The versions that shall be in service, and what the labels mean."""

    versions: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)

    def answering(self, asked: ModelSpec) -> int | str:
        """The version that answers a call, or the code with which it is refused."""
        if asked.label is not None:
            if asked.label not in self.labels:
                return "INVALID_ARGUMENT"
            version: int | None = self.labels[asked.label]
        else:
            version = asked.version if asked.version is not None else max(self.versions, default=None)
        return version if version in self.versions and version is not None else "NOT_FOUND"


class Wishes:
    """The wishes for one model over time. One thread changes them, others ask."""

    def __init__(self, wish: Wish | None = None) -> None:
        self._times: list[tuple[Wish, ...]] = [(wish or Wish(),)]
        self._lock = threading.Lock()

    @property
    def now(self) -> Wish:
        """The last wish."""
        return self._times[-1][-1]

    def changing(self, wish: Wish) -> None:
        """From now on the server may go over to this wish; to be called before it can know of it."""
        with self._lock:
            self._times.append((self.now, wish))

    def settled(self) -> None:
        """The server has gone over to it."""
        with self._lock:
            self._times.append((self.now,))

    def mark(self) -> int:
        """A point in time."""
        return len(self._times) - 1

    def fault(self, mark: int, asked: ModelSpec, answer: int | str) -> str:
        """What is wrong with the answer to a call that began at `mark` and has just ended; "" for nothing.

        Args:
            answer: the version that answered, or the code of the refusal.
        """
        with self._lock:
            wishes = [wish for time in self._times[mark:] for wish in time]
        if answer in {wish.answering(asked) for wish in wishes}:
            return ""
        if all(wish == wishes[0] for wish in wishes):
            allowed = False
        elif asked.label is not None:
            # labels change at once, versions when they are loaded
            allowed = answer == "NOT_FOUND" and any(asked.label in wish.labels for wish in wishes)
        else:
            # versions come and go one by one, and each may be the newest for a moment
            allowed = asked.version is None and any(answer in wish.versions for wish in wishes)
        if allowed:
            return ""
        return f"asked for {_spelled(asked)}, got {answer}, but wanted was {_listed(wishes)}"


def _spelled(asked: ModelSpec) -> str:
    if asked.label is not None:
        return f"{asked.name}@{asked.label}"
    return f"{asked.name}:{'newest' if asked.version is None else asked.version}"


def _listed(wishes: list[Wish]) -> str:
    texts = [f"{sorted(wish.versions)} {dict(wish.labels) or ''}".strip() for wish in wishes]
    return ", then ".join(dict.fromkeys(texts))
