"""Bodies that are arriving or wait for their turn: how long they may take, and how much memory they hold."""

from __future__ import annotations

import asyncio
from types import TracebackType

from tfserving.errors import DeadlineError, ExhaustedError, InvalidInputError
from tfserving.server.http.http_connection import PORTION_BYTES
from tfserving.server.http.http_messages import RequestBody
from tfserving.server.server_options import LimitOptions
from tfserving.server.service import Service
from tfserving.wire.model_spec import ModelSpec


class ArrivingBodies:
    """The bodies of all connections. All methods belong to the event loop.

    The timeout of a body starts again after PORTION_BYTES. Bodies that are not larger hold little memory, so
    neither the limit of bytes nor an unknown model stops them.
    """

    def __init__(self, service: Service, limits: LimitOptions) -> None:
        self.service = service
        self.limits = limits
        self.bytes = 0

    def receive(self, body: RequestBody, spec: ModelSpec) -> ArrivingBody:
        """The body of a request for a model; use it with `with`."""
        return ArrivingBody(self, body, spec)


class ArrivingBody:
    """One body; `add` is called with the size of each piece of it.

    Attributes:
        size: bytes that have arrived.
    """

    __slots__ = ("_bodies", "_body", "_counted", "_spec", "_timer", "size")

    def __init__(self, bodies: ArrivingBodies, body: RequestBody, spec: ModelSpec) -> None:
        self._bodies = bodies
        self._body = body
        self._spec = spec
        self.size = 0
        self._counted = 0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> ArrivingBody:
        length = self._body.length
        if length > PORTION_BYTES:
            self._bodies.service.check_served(self._spec)
        self._check_size(length)
        if not self._body.is_complete:
            self._start_timer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Stop counting the body, and its timeout; may be called more than once."""
        self._bodies.bytes -= self._counted
        self._counted = 0
        if self._timer is not None:
            self._timer.cancel()

    def add(self, size: int) -> None:
        """Count a piece.

        Raises:
            InvalidInputError: the body is larger than --rest_api_max_body_bytes.
            NotFoundError: the model or the version is not served, so the rest is not worth reading.
            ExhaustedError: the bodies that arrive or wait have too many bytes.
        """
        self.size += size
        self._check_size(self.size)
        if self.size - self._counted < PORTION_BYTES:
            return
        bodies = self._bodies
        if not self._counted:
            bodies.service.check_served(self._spec)
        bodies.bytes += self.size - self._counted
        self._counted = self.size
        limit = bodies.limits.max_queued_bytes
        if bodies.bytes > limit and bodies.bytes > self._counted:
            raise ExhaustedError(
                f"REST requests that are arriving or waiting have {bodies.bytes} bytes, and "
                f"--max_queued_bytes={limit}; retry later, or raise the limit"
            )
        self._start_timer()

    def _check_size(self, size: int) -> None:
        limit = self._bodies.limits.max_body_bytes
        if size > limit:
            raise InvalidInputError(
                f"the body has more than {limit} bytes (--rest_api_max_body_bytes); send a smaller request"
            )

    def _start_timer(self) -> None:
        timeout = self._bodies.limits.body_timeout_in_ms
        if self._timer is not None:
            self._timer.cancel()
        if timeout > 0:
            self._timer = asyncio.get_running_loop().call_later(timeout / 1e3, self._expire)

    def _expire(self) -> None:
        self._body.fail(
            DeadlineError(
                f"the body arrives too slowly: {self.size} bytes so far, and fewer than {PORTION_BYTES} "
                f"in the last {self._bodies.limits.body_timeout_in_ms} ms (--rest_api_body_timeout_in_ms)"
            )
        )
