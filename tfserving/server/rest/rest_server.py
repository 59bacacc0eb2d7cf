"""The HTTP server of the REST API."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tfserving.server.http.http_messages import HttpResponse
from tfserving.server.http.http_server import HttpServer
from tfserving.server.observability.observability import Page
from tfserving.server.ports import BoundPort
from tfserving.server.request_context import Observer
from tfserving.server.rest import responses
from tfserving.server.rest.instrumentation import instrument
from tfserving.server.rest.rest_api import RestApi
from tfserving.server.server_options import LimitOptions, RestOptions
from tfserving.server.service import Service

log = logging.getLogger(__name__)


def make_rest_server(
    service: Service,
    options: RestOptions,
    limits: LimitOptions,
    *,
    observers: Sequence[Observer] = (),
    page: Page | None = None,
) -> HttpServer:
    """A server of the REST API, which has no port yet.

    Args:
        limits: bound connections, and what requests can occupy.
        observers: are notified of every request.
        page: is served beside the API, and not observed.
    """
    handle = RestApi(service, options, limits).handle
    return HttpServer(
        instrument(handle, observers, page),
        lambda status, message: HttpResponse(responses.encode_error(message), status),
        limits,
    )


async def open_port(server: HttpServer, port: BoundPort) -> None:
    """Accept requests at a port.

    Raises:
        UnavailableError: another process listens on the port.
    """
    port.listen()  # uvloop does not report that listening failed
    await server.start(port.sockets)
    log.info("REST API listening at http://%s", port.address)
