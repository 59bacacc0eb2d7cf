"""The health service of gRPC, grpc.health.v1.Health, over the models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

SERVICE = "grpc.health.v1.Health"

# Seconds between two looks at the models for those who watch; Check looks at once.
_WATCH_SECONDS = 0.5

_Status = health_pb2.HealthCheckResponse


class Health:
    """Knows each model of the configuration by its name, and all of them together as "".

    Of our own, because the library's remembers models that are gone, and tells those who watch a model
    nothing more once one of them has left.

    Args:
        availability: tells for each configured model whether it can be called.
    """

    def __init__(self, availability: Callable[[], dict[str, bool]]) -> None:
        self._availability = availability
        self._stopping = asyncio.Event()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Has the server offer the service."""
        add_HealthServicer_to_server(self, server)

    def stop(self) -> None:
        """Nothing is healthy from now on; who watches is told so, and that it was the last word."""
        self._stopping.set()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the call
        """The status of a model now; NOT_FOUND for one that is not configured."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.service!r} is configured")
        return _Status(status=status)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the name of the call
        """The status of a model, again whenever it is another; a model may be configured later."""
        told = None
        while True:
            stopping = self._stopping.is_set()
            status = self._status(request.service)
            if status != told:
                await context.write(_Status(status=status))
                told = status
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
