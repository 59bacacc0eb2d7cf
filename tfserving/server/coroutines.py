"""Coroutines that begin outside of a task, and get one when they wait for something."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any


@types.coroutine
def resume(running: Coroutine[Any, Any, Any], future: Any) -> Generator[Any, Any, Any]:
    """The rest of a coroutine that has begun and waits for a future."""
    while True:
        try:
            try:
                yield future
            except GeneratorExit:
                running.close()
                raise
            except BaseException as error:  # noqa: BLE001 - raised in the coroutine
                future = running.throw(error)
            else:
                future = running.send(None)
        except StopIteration as done:
            return done.value
