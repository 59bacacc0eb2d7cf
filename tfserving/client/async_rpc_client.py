"""The asyncio gRPC client."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from tfserving.client.async_client import AsyncClient
from tfserving.client.rpc_transport import RpcTransport


class AsyncTfRpcClient(RpcTransport, AsyncClient):
    """`TfRpcClient` for asyncio: the same arguments, and the same calls as coroutines.

    async with AsyncTfRpcClient("127.0.0.1:8500", "digits") as client:
        outputs = await client.infer({"image": images})

    Fork before the first call, or spawn: gRPC's asyncio has threads that do not follow into a child, and
    calls of a child that was forked while others were under way can hang.
    """

    _api = grpc.aio
    _owner = asyncio.get_running_loop

    async def _send(self, path: str, body: bytes | None, timeout: float | None, model: str | None) -> bytes:
        # held until the answer is here: a channel that nobody holds closes
        lane = self._channels.lane()
        try:
            reply: bytes = await lane[path](body, timeout=timeout, metadata=self._call_metadata())
        except grpc.RpcError as error:
            raise self._failure(error, model) from error
        except grpc.aio.UsageError as error:
            raise self._closed(error, model) from error
        except asyncio.CancelledError as error:
            if self._channels.closed:  # gRPC's word for calls of a channel that is closed under them
                raise self._closed(error, model) from error
            raise
        return reply

    async def close(self) -> None:
        """See `BlockingClient.close`."""
        for lane in self._channels.close():
            await lane.channel.close()
