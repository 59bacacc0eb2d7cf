"""The health service of gRPC, grpc.health.v1.Health, with one service name for each model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from tfserving.server.grpc.core_server import CoreServer
from tfserving.server.grpc.status_details import shorten

SERVICE = "grpc.health.v1.Health"

# Seconds between two checks of the status for Watch; Check returns the current status.
_WATCH_SECONDS = 0.5

_Status = health_pb2.HealthCheckResponse


class HealthService:
    """Reports the health of each configured model under its name, and of all models together under "".

    The servicer of grpcio-health-checking is not used: it keeps reporting models that were removed, and stops
    sending updates to all watchers of a model when one of them disconnects.

    Args:
        availability: returns for each configured model whether it is available.
    """

    def __init__(self, availability: Callable[[], dict[str, bool]]) -> None:
        self._availability = availability
        self._stopping = asyncio.Event()

    def add_to(self, server: CoreServer | grpc.aio.Server) -> None:
        """Register the service with a server."""
        add_HealthServicer_to_server(self, server)

    def stop(self) -> None:
        """Report NOT_SERVING from now on, and end the streams of watchers with it."""
        self._stopping.set()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method
        """Return the current status of a model; NOT_FOUND if it is not configured."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            details = shorten(f"model {request.service!r} is not configured")
            await context.abort(grpc.StatusCode.NOT_FOUND, details)
        return _Status(status=status)

    async def Watch(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method
        """Send the status of a model, and send it again on each change; the model may be configured later."""
        last_sent = None
        while True:
            stopping = self._stopping.is_set()
            status = self._status(request.service)
            if status != last_sent:
                yield _Status(status=status)
                last_sent = status
            if stopping:
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _WATCH_SECONDS)

    def _status(self, name: str) -> int:
        availability = self._availability()
        available = all(availability.values()) if not name else availability.get(name)
        if available is None:
            return int(_Status.SERVICE_UNKNOWN)
        serving = available and not self._stopping.is_set()
        return int(_Status.SERVING if serving else _Status.NOT_SERVING)
