"""The asyncio gRPC client."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from tfserving.client.async_client import AsyncClient
from tfserving.client.flow import Request
from tfserving.client.options import pairs_of
from tfserving.client.rpc_transport import RpcTransport


class AsyncTfRpcClient(RpcTransport, AsyncClient):
    """`TfRpcClient` for asyncio: the same arguments, and the same calls as coroutines.

        async with AsyncTfRpcClient("127.0.0.1:8500", "digits") as client:
            outputs = await client.infer({"image": images})

    Forks: fork before the first call, or start processes with "spawn". gRPC's asyncio threads do not exist in
    a forked child. There the client opens new connections in the child's event loop, but if calls were in
    flight at the fork, calls of the child can hang. A fork neither waits for asyncio calls nor cancels them.
    """

    _api = grpc.aio
    _owner = asyncio.get_running_loop

    async def _send(self, request: Request[Any]) -> bytes:
        metadata = pairs_of(self._metadata) if callable(self._metadata) else self._metadata
        stubs = self._channels.next_stubs()
        try:
            stub = stubs[request.path]
            response: bytes = await stub(request.body, timeout=request.timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise self._translate(error, request.model) from error
        except grpc.aio.UsageError as error:
            raise self._make_closed_error(error, request.model) from error
        except asyncio.CancelledError as error:
            if self._channels.is_closed:  # gRPC cancels the calls of a channel that is closed
                raise self._make_closed_error(error, request.model) from error
            raise
        return response

    async def close(self) -> None:
        """See `BlockingClient.close`."""
        for channel in self._channels.close():
            await channel.close()
