"""What is known of a call while it is answered, for those who count calls or write them down.

The API that takes a call makes it the current one of its task and of the worker that it runs in; whoever
answers it adds what he finds out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Protocol

from tfserving.errors import TfServingError
from tfserving.wire.model_spec import ModelSpec

log = logging.getLogger(__name__)

GRPC, REST = "GRPC", "REST"


class Observer(Protocol):
    """Is told of every call, in the event loop: must not block."""

    def began(self, call: Call) -> None:
        """A call was taken."""

    def ended(self, call: Call) -> None:
        """It is answered, one way or another; `call` is complete."""


class Call:
    """A call, from `with` to the end of the block, which is when the observers are told.

    Attributes:
        api: GRPC or REST.
        method: what gRPC calls the method ("Predict"), over REST as well; "" where the request is none.
        peer: the caller's address, as the API knows it.
        began: when, in seconds of time.perf_counter().
        seconds: how long it took; 0 until it ended.
        asked: the model as the caller names it, who may name what does not exist.
        version, signature: those that answer, known to exist; None and "" until they are found.
        status: canonical status name.
        request_bytes, response_bytes: sizes of the messages, or of the bodies.
        examples: tf.Examples in the request; 0 for calls that take none.
        run_seconds: how long the model ran, waiting in a batch included; None when it did not run.
    """

    # defaults stand here and not in __init__: most calls never touch most of them
    asked = ModelSpec("")
    version: int | None = None
    signature = ""
    status = "OK"
    seconds = 0.0
    request_bytes = 0
    response_bytes = 0
    examples = 0
    run_seconds: float | None = None

    def __init__(self, observers: Sequence[Observer], api: str, method: str = "", *, peer: str = "") -> None:
        self._observers = observers
        self.api = api
        self.method = method
        self.peer = peer
        self.began = time.perf_counter()

    def __enter__(self) -> Call:
        _CURRENT.set(self)
        for observer in self._observers:
            observer.began(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self.began
        if error is not None:
            self.failed(error)
        for observer in self._observers:
            try:
                observer.ended(self)
            except Exception:
                log.exception("recording a call")  # which is answered all the same

    def failed(self, error: BaseException) -> None:
        """Notes how the call failed."""
        if isinstance(error, TfServingError):
            self.status = error.code
        else:
            self.status = "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"


def current() -> Call:
    """The call that is being answered in this task or worker; one that is never looked at when none is."""
    return _CURRENT.get()


_NOBODYS = Call((), GRPC)
_CURRENT: ContextVar[Call] = ContextVar("call", default=_NOBODYS)
