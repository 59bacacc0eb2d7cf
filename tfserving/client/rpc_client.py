"""The blocking gRPC client."""

from __future__ import annotations

import grpc

from tfserving.client.blocking_client import BlockingClient
from tfserving.client.fork_safety import GATE
from tfserving.client.rpc_transport import RpcTransport
from tfserving.errors import UnavailableError


class TfRpcClient(RpcTransport, BlockingClient):
    """A client over gRPC. Connects with the first call, and again by itself; close it, or use `with`.

        with TfRpcClient("127.0.0.1:8500", "digits") as client:
            outputs = client.infer({"image": images})

    Args:
        address: "host:port"; or several, as a comma list or a sequence: calls go to them in turn, past those
            that do not answer. The port may be left out (8500). "unix:PATH" for a socket.
        model_name: the model of calls that name none.
        timeout: seconds for calls that give none; None for no limit.
        retry: when to ask again.
        keepalive: how a frozen server is noticed; None not to look.
        tls: for an encrypted connection.
        metadata: pairs to send with each call, or a function that gives them,
            e.g. `{"authorization": "Bearer ..."}`.
        channels: how many connections to use in turn: several carry large tensors faster.
        channel_options: more of gRPC's own, (name, value); these win.

    Raises:
        InvalidInputError: an address or option that cannot be right.
    """

    _api = grpc

    def _send(self, path: str, body: bytes | None, timeout: float | None, model: str | None) -> bytes:
        me = GATE.enter()
        channels = self._channels
        broken_off = channels.broken_off
        try:
            reply: bytes = channels.lane()[path](body, timeout=timeout, metadata=self._call_metadata())
        except (grpc.RpcError, ValueError) as error:  # ValueError: a channel that is closed already
            if channels.broken_off != broken_off:
                raise UnavailableError("broken off by a fork", address=self.address) from error
            if channels.closed or isinstance(error, ValueError):
                raise self._closed(error, model) from error
            raise self._failure(error, model) from error
        finally:
            GATE.leave(me)
        return reply

    def close(self) -> None:
        """See `BlockingClient.close`."""
        for lane in self._channels.close():
            lane.channel.close()
