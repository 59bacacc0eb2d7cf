"""What servers must have reached before a change goes on, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tfserving.client.types import VersionStatus
from tfserving.errors import DeadlineError, FailedPreconditionError, TfServingError, UnavailableError
from tfserving.release.servers import ServerConnections, ServerProcess, available_versions, has_responded
from tfserving.repository.diagnostics import list_numbers
from tfserving.repository.model_names import quote

_POLL_SECONDS = 0.02
# A version that failed before stays END for a moment when it is loaded again.
_STALE_SECONDS = 2.0


@dataclass(frozen=True)
class Goal:
    """States of versions of one model.

    Attributes:
        model: its name; "" for no goal.
        available: the versions that must be AVAILABLE.
        only: whether no other version may be.
    """

    model: str = ""
    available: tuple[int, ...] = ()
    only: bool = False


def reach_goal(connections: ServerConnections, server: ServerProcess, goal: Goal, *, timeout: float) -> None:
    """Wait until a server has reached `goal`.

    Raises:
        FailedPreconditionError: a version failed to load; the message says which and why.
        DeadlineError: `timeout` seconds have passed.
        UnavailableError: the server does not respond.
    """
    if not goal.model:
        return
    started = time.monotonic()
    moved: set[int] = set()
    missing = ""
    while True:
        try:
            states = connections.states(server, [goal.model])[goal.model]
        except DeadlineError as error:  # busy with loading
            missing = missing or str(error)
        except TfServingError as error:
            does = "rejects the request" if has_responded(error) else "does not respond"
            raise UnavailableError(f"server {server} {does}: {error}") from error
        else:
            missing = _find_missing(goal, states)
            if not missing:
                return
            moved.update(state.version for state in states if state.state != "END")
            if failed := _find_failed(goal, states, moved, time.monotonic() - started):
                raise FailedPreconditionError(
                    f"server {server}: version {failed.version} of model {quote(goal.model)} failed to load: "
                    f"{failed.error_message or failed.error_code}",
                    model=goal.model,
                )
        if time.monotonic() - started >= timeout:
            raise DeadlineError(
                f"server {server}: {missing} after {timeout:g} s; wait longer with --timeout, or see its log",
                model=goal.model,
            )
        time.sleep(_POLL_SECONDS)


def _find_missing(goal: Goal, states: Sequence[VersionStatus]) -> str:
    """What keeps a server from the goal; "" if nothing does."""
    now = set(available_versions(states))
    by_version = {state.version: state.state for state in states}
    for version in goal.available:
        if version not in now:
            state = by_version.get(version)
            what = f"is {state}, not AVAILABLE," if state else "is not listed"
            return f"version {version} of model {quote(goal.model)} {what}"
    if goal.only and (more := now - set(goal.available)):
        return f"version {list_numbers(more)} of model {quote(goal.model)} is still AVAILABLE"
    return ""


def _find_failed(
    goal: Goal, states: Sequence[VersionStatus], moved: set[int], seconds: float
) -> VersionStatus | None:
    for state in states:
        failed = state.version in goal.available and state.state == "END" and state.error_code != "OK"
        if failed and (state.version in moved or seconds > _STALE_SECONDS):
            return state
    return None
