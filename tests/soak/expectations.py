"""Which responses to a prediction are correct, given the versions that should be served."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from tfserving.wire.model_spec import ModelSpec

# The statuses of a request for a version or label that is not served.
REJECTIONS = ("NOT_FOUND", "INVALID_ARGUMENT")


@dataclass(frozen=True)
class Served:
    """The versions of one model that should be available, and its labels."""

    versions: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)

    def resolve(self, spec: ModelSpec) -> int | str:
        """Return the version that should respond to a request, or the status that should reject it."""
        if spec.label is not None:
            if spec.label not in self.labels:
                return "INVALID_ARGUMENT"
            version: int | None = self.labels[spec.label]
        else:
            version = spec.version if spec.version is not None else max(self.versions, default=None)
        return version if version in self.versions and version is not None else "NOT_FOUND"


class Expectations:
    """What should be served of one model over time.

    One operator changes it; load generators read it. It is a list of intervals. An interval has one `Served`
    while nothing changes, and two, the old and the new one, while the server is changing over.
    """

    def __init__(self, served: Served | None = None) -> None:
        self._intervals: list[tuple[Served, ...]] = [(served or Served(),)]
        self._lock = threading.Lock()

    @property
    def latest(self) -> Served:
        """What should be served once the current change is complete."""
        return self._intervals[-1][-1]

    def begin_change(self, served: Served) -> None:
        """Allow the old and the new; call it before the server can see the change."""
        with self._lock:
            self._intervals.append((self.latest, served))

    def finish_change(self) -> None:
        """Allow only the new; call it when the server has changed over."""
        with self._lock:
            self._intervals.append((self.latest,))

    def current_interval(self) -> int:
        """Return the number of the current interval, for `find_violation`."""
        return len(self._intervals) - 1

    def find_violation(self, since: int, spec: ModelSpec, response: int | str) -> str:
        """Describe why the response to a request that has just finished is wrong; "" if it is correct.

        Args:
            since: the interval in which the request began.
            spec: model, and version or label, of the request.
            response: the version that responded, or the name of the status.
        """
        with self._lock:
            allowed = [served for interval in self._intervals[since:] for served in interval]
        if response in {served.resolve(spec) for served in allowed}:
            return ""
        if any(served != allowed[0] for served in allowed):
            if spec.label is not None:
                # A label changes immediately, but its version is available only after it is loaded.
                correct = response == "NOT_FOUND" and any(spec.label in served.labels for served in allowed)
            else:
                # Versions are loaded and unloaded one by one, and each may be the newest for a moment.
                correct = spec.version is None and any(response in served.versions for served in allowed)
            if correct:
                return ""
        return f"request for {_format_spec(spec)}: got {response}, expected is {_format_served(allowed)}"


def _format_spec(spec: ModelSpec) -> str:
    if spec.label is not None:
        return f"{spec.name}@{spec.label}"
    return f"{spec.name}:{'newest' if spec.version is None else spec.version}"


def _format_served(allowed: list[Served]) -> str:
    texts = [f"{sorted(served.versions)} {dict(served.labels) or ''}".strip() for served in allowed]
    return ", then ".join(dict.fromkeys(texts))
