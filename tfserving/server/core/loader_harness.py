"""One version of a model: its state, what is loaded, and who is using it."""

from __future__ import annotations

import threading
from pathlib import Path

from tfserving.errors import TfServingError
from tfserving.server.core.servable import Servable
from tfserving.server.core.servable_state import State, VersionStatus


class Harness:
    """Walks from START to END once; only the manager moves it on.

    A pin keeps the servable from being freed. Pins are refused from the moment that unloading begins, and
    `wait_until_unpinned` returns when the last one is gone.
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

    @property
    def state(self) -> State:
        """Where in its life the version is."""
        return self._state

    @property
    def status(self) -> VersionStatus:
        """State and error, taken together."""
        with self._condition:
            return VersionStatus(self.version, self._state, self._error)

    @property
    def servable(self) -> Servable:
        """What is loaded; to be touched only under a pin."""
        assert self._servable is not None, "used without a pin"
        return self._servable

    def loading(self) -> None:
        """START -> LOADING."""
        self._move(State.LOADING)

    def available(self, servable: Servable) -> None:
        """LOADING -> AVAILABLE: pins are given from now on."""
        self._servable = servable
        self._move(State.AVAILABLE)

    def unloading(self) -> None:
        """AVAILABLE -> UNLOADING: no pin is given any more."""
        self._move(State.UNLOADING)

    def end(self, error: TfServingError | None = None) -> None:
        """Any state -> END, freeing what was loaded."""
        servable, self._servable = self._servable, None
        self._error = error
        if servable is not None:
            servable.close()
        self._move(State.END)

    def pin(self) -> bool:
        """Takes a pin; False when the version is not, or no longer, AVAILABLE."""
        with self._condition:
            if self._state is not State.AVAILABLE:
                return False
            self._pins += 1
            return True

    def unpin(self) -> None:
        """Gives a pin back."""
        with self._condition:
            self._pins -= 1
            if not self._pins:
                self._condition.notify_all()

    def wait_until_unpinned(self) -> None:
        """Blocks until every call that uses the version has finished."""
        with self._condition:
            self._condition.wait_for(lambda: not self._pins)

    def _move(self, state: State) -> None:
        with self._condition:
            self._state = state
