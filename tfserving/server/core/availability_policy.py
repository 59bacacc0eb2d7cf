"""Which step brings the versions of a model nearer to what is wanted, without a gap in service.

The rule of TensorFlow Serving's AvailabilityPreservingPolicy: a version that is no longer wanted goes only
when a wanted one serves, or when none is wanted at all. Until then both are in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tfserving.server.core.servable_state import State


@dataclass(frozen=True)
class Candidate:
    """What the policy needs to know of a version."""

    version: int
    state: State
    aspired: bool


@dataclass(frozen=True)
class Load:
    """Bring this version into service."""

    version: int


@dataclass(frozen=True)
class Unload:
    """Take this version out of service."""

    version: int


def next_step(candidates: Iterable[Candidate]) -> Load | Unload | None:
    """The next step for one model, None when there is nothing to do but wait.

    Unloading comes first, since it frees memory; then the highest version is loaded first.
    """
    versions = sorted(candidates, key=lambda candidate: candidate.version)
    wanted = [candidate for candidate in versions if candidate.aspired]
    if not wanted or any(candidate.state is State.AVAILABLE for candidate in wanted):
        for candidate in versions:
            if not candidate.aspired and candidate.state is State.AVAILABLE:
                return Unload(candidate.version)
    for candidate in reversed(wanted):
        if candidate.state is State.START:
            return Load(candidate.version)
    return None
