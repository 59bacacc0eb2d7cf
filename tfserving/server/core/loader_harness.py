"""One version of a model: its state, its servable, and the requests that use it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from tfserving.errors import TfServingError
from tfserving.server.core.servable import Servable
from tfserving.server.core.servable_state import ServableStatus, State

log = logging.getLogger(__name__)

# The states that may follow each state. A version is never loaded twice: a new harness takes its place.
TRANSITIONS = {
    State.START: frozenset({State.LOADING, State.END}),
    State.LOADING: frozenset({State.AVAILABLE, State.END}),
    State.AVAILABLE: frozenset({State.UNLOADING}),
    State.UNLOADING: frozenset({State.END}),
    State.END: frozenset[State](),
}


class LoaderHarness:
    """A version on its way from START to END (loader_harness.cc). Only the manager changes its state.

    A pin keeps the servable from being freed. No pin is given once unloading has begun, and
    `wait_until_unpinned` returns when the last one is released.
    """

    def __init__(self, model: str, version: int, path: Path) -> None:
        self.model = model
        self.version = version
        self.path = path
        self.aspired = True
        self.attempts = 0
        self._state = State.START
        self._error: TfServingError | None = None
        self._servable: Servable | None = None
        self._pins = 0
        self._condition = threading.Condition()

    def __str__(self) -> str:
        return f"model {self.model!r} version {self.version}"

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    @property
    def status(self) -> ServableStatus:
        """State and error, read together."""
        with self._condition:
            return ServableStatus(self.version, self._state, self._error)

    @property
    def servable(self) -> Servable:
        """The loaded servable; only for the holder of a pin."""
        assert self._servable is not None, "used without a pin"
        return self._servable

    def start_loading(self) -> None:
        """START -> LOADING."""
        self._transition(State.LOADING)

    def finish_loading(self, servable: Servable) -> None:
        """LOADING -> AVAILABLE: pins are given from now on."""
        self._transition(State.AVAILABLE, servable)

    def start_unloading(self) -> None:
        """AVAILABLE -> UNLOADING: no more pins are given."""
        self._transition(State.UNLOADING, self._servable)

    def end(self, error: TfServingError | None = None) -> None:
        """START, LOADING or UNLOADING -> END, with the error of a failed load; frees the servable.

        If the servable cannot be closed, the error is logged and the version still reaches END.
        """
        self._check_transition(State.END)
        if self._servable is not None:
            try:
                self._servable.close()
            except Exception:
                log.exception("%s: closing the servable failed; its memory may not be freed", self)
        self._transition(State.END, error=error)

    def pin(self) -> bool:
        """Takes a pin; False unless the version is AVAILABLE."""
        with self._condition:
            if self._state is not State.AVAILABLE:
                return False
            self._pins += 1
            return True

    def unpin(self) -> None:
        """Releases a pin."""
        with self._condition:
            self._pins -= 1
            if not self._pins:
                self._condition.notify_all()

    def wait_until_unpinned(self) -> None:
        """Blocks until every request that uses the version has finished."""
        with self._condition:
            self._condition.wait_for(lambda: not self._pins)

    def _check_transition(self, state: State) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"{self} cannot change from {self._state.name} to {state.name}")

    def _transition(
        self, state: State, servable: Servable | None = None, error: TfServingError | None = None
    ) -> None:
        """The one place where the state changes, together with what belongs to it.

        Raises:
            RuntimeError: TRANSITIONS does not allow it; nothing has changed then.
        """
        with self._condition:
            self._check_transition(state)
            self._state, self._servable, self._error = state, servable, error
