"""The context of one request, which is passed from the transport to the servable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from tfserving.errors import TfServingError
from tfserving.wire.model_spec import ModelSpec

log = logging.getLogger(__name__)

GRPC, REST = "GRPC", "REST"


class Observer(Protocol):
    """Is notified of every request, in the event loop: must not block."""

    def request_started(self, context: RequestContext) -> None:
        """A request arrived; only `api`, `method` and `peer` are known."""

    def request_finished(self, context: RequestContext) -> None:
        """The response is ready, or the request failed; `context` is complete."""


class RequestContext:
    """A request, from `with` to the end of the block. The observers are notified at both.

    The transport creates it and passes it down; each layer records what it finds out.

    Attributes:
        api: GRPC or REST; "" for a run that no request started, such as a batch or a warmup record.
        method: the gRPC method name ("Predict"), over REST as well; "" if the request is malformed.
        peer: the caller's address in the transport's notation.
        started: when the request arrived, in seconds of time.perf_counter().
        seconds: how long the request took; 0 until it has finished.
        requested_spec: the model as the caller names it; it may not exist.
        version, signature: the ones that serve the request; None and "" until they are found.
        status: canonical status name.
        request_bytes, response_bytes: sizes of the messages (gRPC) or bodies (REST).
        examples: number of tf.Examples in the request; 0 for methods that take none.
        run_seconds: how long the model ran, including the wait for a batch; None if it did not run.
        in_event_loop: whether the request runs in the event loop, which it must not delay.
    """

    # Class attributes: most requests never set most of them, and an instance is made for every request.
    requested_spec = ModelSpec("")
    version: int | None = None
    signature = ""
    status = "OK"
    seconds = 0.0
    request_bytes = 0
    response_bytes = 0
    examples = 0
    run_seconds: float | None = None
    in_event_loop = False

    def __init__(
        self, api: str = "", method: str = "", *, peer: str = "", observers: Sequence[Observer] = ()
    ) -> None:
        self.api = api
        self.method = method
        self.peer = peer
        self._observers = observers
        self.started = time.perf_counter()

    def __enter__(self) -> RequestContext:
        for observer in self._observers:
            observer.request_started(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self.started
        if error is not None:
            self.record_failure(error)
        for observer in self._observers:
            try:
                observer.request_finished(self)
            except Exception:
                log.exception("an observer failed; the response is still sent")

    def record_failure(self, error: BaseException) -> None:
        """Sets the status that belongs to an error."""
        if isinstance(error, TfServingError):
            self.status = error.code
        else:
            self.status = "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"
