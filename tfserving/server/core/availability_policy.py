"""The availability policy: the next step from the served versions to the aspired ones without downtime.

The rules are those of TensorFlow Serving's AvailabilityPreservingPolicy (availability_preserving_policy.cc).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tfserving.server.core.servable_state import State


@dataclass(frozen=True)
class Candidate:
    """What the availability policy needs to know about a version."""

    version: int
    state: State
    aspired: bool


@dataclass(frozen=True)
class Load:
    """Load this version."""

    version: int


@dataclass(frozen=True)
class Unload:
    """Unload this version."""

    version: int


def next_step(candidates: Iterable[Candidate]) -> Load | Unload | None:
    """Decides the next step for one model; None if there is nothing to do but wait.

    Unloading comes first, because it frees memory: the lowest available version that is not aspired, if no
    version is aspired, an aspired one is available, or another one that is not aspired stays available. Then
    the highest aspired version is loaded.
    """
    versions = sorted(candidates, key=lambda candidate: candidate.version)
    aspired = [candidate for candidate in versions if candidate.aspired]
    obsolete = [
        candidate for candidate in versions if not candidate.aspired and candidate.state is State.AVAILABLE
    ]
    aspired_is_available = any(candidate.state is State.AVAILABLE for candidate in aspired)
    if obsolete and (not aspired or aspired_is_available or len(obsolete) > 1):
        return Unload(obsolete[0].version)
    for candidate in reversed(aspired):
        if candidate.state is State.START:
            return Load(candidate.version)
    return None
