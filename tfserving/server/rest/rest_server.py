"""The HTTP server under the REST API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aiohttp import http_exceptions, web
from aiohttp.http_parser import RawRequestMessage

from tfserving.server.observability.call_context import Observer
from tfserving.server.rest import responses
from tfserving.server.rest.instrumentation import Page, observed
from tfserving.server.rest.rest_api import RestApi, RestOptions, json_response
from tfserving.server.service import Service

log = logging.getLogger(__name__)

# How much of a body may wait to be read before the sender is told to stop. All of it is going to be in memory
# anyway, and stopping and starting takes longer than receiving: 3 MB take 1.5 ms so, 4 to 10 with 1 MB here.
READ_BUFFER_BYTES = 1 << 25


def rest_runner(
    service: Service,
    options: RestOptions | None = None,
    *,
    shutdown_timeout: float = 10.0,
    observers: Sequence[Observer] = (),
    pages: Sequence[Page] = (),
) -> web.BaseRunner:
    """The REST API, ready for `setup()` and a site that listens.

    Args:
        service: what answers.
        observers: are told of every call.
        pages: what else there is on the port.
        shutdown_timeout: seconds that `cleanup()` gives the requests in flight.
    """
    handle = RestApi(service, options or RestOptions()).handle
    return web.ServerRunner(
        _Server(observed(handle, observers, pages), request_factory=_request),
        shutdown_timeout=shutdown_timeout,
    )


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            # bodies are decompressed in a worker and within a bound
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
        )


class _Connection(web.RequestHandler):
    """Answers what is not HTTP as the API answers any refusal, and without a traceback in the log."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Ends bodies that calls wait for when what comes instead is not HTTP; aiohttp lets them wait."""
        super().data_received(data)
        if not self._messages or isinstance(self._messages[-1][0], RawRequestMessage):
            return
        bodies = [body for _, body in self._messages]
        if self._current_request is not None:
            bodies.append(self._current_request.content)
        for body in bodies:
            if not body.is_eof():
                body.set_exception(web.RequestPayloadError(self._messages[-1][0].message))
                self._lingering_time = 0  # there is nothing left to be read
                self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers in place of the API: the request could not be parsed."""
        super().handle_error(request, status, exc, message)
        what = "the request is not HTTP/1.1" if status < 500 else "the server failed"
        text = (message or str(exc)).partition("\n")[0]
        response = json_response(responses.error(f"{what}: {text}"), status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Keeps out of the log what anyone who sends garbage can bring about."""
        error = kw.get("exc_info")
        if isinstance(error, http_exceptions.HttpProcessingError):
            log.debug("%s: %s", args[0] % args[1:], error.message.partition("\n")[0])
        else:
            super().log_exception(*args, **kw)


def _request(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    # bodies may have any size
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=0)
