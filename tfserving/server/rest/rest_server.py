"""The HTTP server of the REST API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aiohttp import http_exceptions, web
from aiohttp.http_parser import RawRequestMessage

from tfserving.server.observability.observability import Page
from tfserving.server.ports import BoundPort
from tfserving.server.request_context import Observer
from tfserving.server.rest import responses
from tfserving.server.rest.instrumentation import instrument
from tfserving.server.rest.rest_api import RestApi, json_response
from tfserving.server.server_options import LimitOptions, RestOptions
from tfserving.server.service import Service

log = logging.getLogger(__name__)

# Bytes of a body that are buffered before the sender is paused. The whole body is kept in memory anyway, and
# pausing costs time: 3 MB arrive in 1.5 ms with this buffer, in 4 to 10 ms with one of 1 MB.
READ_BUFFER_BYTES = 1 << 25

# tensorflow_model_server has no limits; these bound the memory that the head of a request takes.
MAX_LINE_BYTES = 1 << 16
MAX_HEADERS = 512


def make_rest_runner(
    service: Service,
    options: RestOptions,
    *,
    shutdown_timeout: float,
    limits: LimitOptions | None = None,
    observers: Sequence[Observer] = (),
    page: Page | None = None,
) -> web.BaseRunner:
    """The REST API as a runner of aiohttp: call `setup()`, then open a port.

    Args:
        shutdown_timeout: seconds that `cleanup()` waits for requests in flight.
        limits: bound what a request can allocate.
        observers: are notified of every request.
        page: is served beside the API, and not observed.
    """
    handle = RestApi(service, options, limits).handle
    return web.ServerRunner(
        _Server(instrument(handle, observers, page), request_factory=_request),
        shutdown_timeout=shutdown_timeout,
    )


async def open_port(runner: web.BaseRunner, port: BoundPort) -> None:
    """Accept requests at a port.

    Raises:
        UnavailableError: another process listens on the port.
    """
    port.listen()  # uvloop does not report that listening failed
    for bound in port.sockets:
        await web.SockSite(runner, bound).start()
    log.info("REST API listening at http://%s", port.address)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            # RestApi decompresses bodies: in a worker, and up to a limit
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
        )


class _Connection(web.RequestHandler):
    """Responds to invalid HTTP as the API responds to any invalid request, without a traceback in the log."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Fail the bodies that handlers wait for when invalid HTTP arrives; aiohttp does not."""
        super().data_received(data)
        if not self._messages or isinstance(self._messages[-1][0], RawRequestMessage):
            return
        bodies = [body for _, body in self._messages]
        if self._current_request is not None:
            bodies.append(self._current_request.content)
        for body in bodies:
            if not body.is_eof():
                body.set_exception(web.RequestPayloadError(self._messages[-1][0].message))
                self._lingering_time = 0  # nothing readable follows
                self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to a request that could not be parsed."""
        super().handle_error(request, status, exc, message)
        what = "the request is not valid HTTP/1.1" if status < 500 else "internal error"
        text = (message or str(exc)).partition("\n")[0]
        response = json_response(responses.encode_error(f"{what}: {text}"), status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log invalid HTTP at level DEBUG: any client can cause it."""
        error = kw.get("exc_info")
        if isinstance(error, http_exceptions.HttpProcessingError):
            log.debug("%s: %s", args[0] % args[1:], error.message.partition("\n")[0])
        else:
            super().log_exception(*args, **kw)


def _request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    # client_max_size=0: no limit on the size of a body
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=0)
