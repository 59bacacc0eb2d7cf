"""The blocking gRPC client."""

from __future__ import annotations

from typing import Any

import grpc

from tfserving.client.blocking_client import BlockingClient
from tfserving.client.flow import Request
from tfserving.client.fork_safety import GATE
from tfserving.client.options import pairs_of
from tfserving.client.rpc_transport import RpcTransport
from tfserving.errors import UnavailableError


class TfRpcClient(RpcTransport, BlockingClient):
    """A client for the gRPC API. It connects on the first call and reconnects automatically.

        with TfRpcClient("127.0.0.1:8500", "digits") as client:
            outputs = client.infer({"image": images})

    A process may fork while its threads call: the fork waits up to a second for the calls in flight, calls
    that take longer are cancelled and retried in the parent, and the client in the child opens new
    connections.

    Args:
        address: "host:port"; or several, as a comma-separated list or a sequence: calls go to them in turn,
            and skip servers that do not respond. So do calls to a name with several addresses; servers that
            are added behind it get calls within about 10 s. The default port is 8500. "unix:PATH" for a
            socket; "ipv4:", "ipv6:" and "dns:" before the host as in gRPC.
        model_name: the default model of the calls.
        timeout: default timeout of the calls in seconds; None for no limit.
        retry: when to retry.
        keepalive: how a frozen server is detected; None to disable it.
        tls: for an encrypted connection.
        metadata: pairs to send with each call, or a function that returns them,
            e.g. `{"authorization": "Bearer ..."}`.
        proxy: URL of an HTTP proxy, None for direct connections; by default as in the environment
            (grpc_proxy, https_proxy, http_proxy, no_grpc_proxy, no_proxy), except for loopback addresses.
        channels: number of connections that take calls in turn: several transfer large tensors faster.
        channel_options: more gRPC channel options, (name, value); they override the client's.
        max_response_bytes: larger responses raise ExhaustedError, before and after decompression; None for no
            limit but that of protobuf, 2 GiB.
        split: weights of version labels, such as {"stable": 95, "canary": 5}: calls of `model_name` without
            a version or label go to one of these labels, by its share; see `split_key` of the calls.

    Raises:
        InvalidInputError: an address or option is not valid.
    """

    _api = grpc

    def _send(self, request: Request[Any]) -> bytes:
        metadata = pairs_of(self._metadata) if callable(self._metadata) else self._metadata
        channels = self._channels
        thread = GATE.enter()
        cancellations = channels.cancellations
        try:
            stub = channels.next_stubs()[request.path]
            response: bytes = stub(request.body, timeout=request.timeout, metadata=metadata)
        except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed before the call
            if channels.cancellations != cancellations:
                raise UnavailableError(
                    f"{self.address}: the call was cancelled by a fork", address=self.address
                ) from error
            if channels.is_closed or isinstance(error, ValueError):
                raise self._make_closed_error(error, request.model) from error
            raise self._translate(error, request.model) from error
        finally:
            GATE.leave(thread)
        return response

    def close(self) -> None:
        """See `BlockingClient.close`."""
        for channel in self._channels.close():
            channel.close()
