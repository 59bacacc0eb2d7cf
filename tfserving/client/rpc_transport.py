"""What the blocking and the asyncio gRPC client have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import grpc

from tfserving.client.addresses import Targets
from tfserving.client.channels import Channels, credentials_for, options_for, through_proxy
from tfserving.client.client_base import ClientBase
from tfserving.client.options import (
    DEFAULT_MAX_RESPONSE_BYTES,
    DEFAULT_RPC_PORT,
    DEFAULT_TIMEOUT,
    UNSET,
    Keepalive,
    Metadata,
    ProxyOption,
    Retry,
    Tls,
    check_max_bytes,
    pairs_of,
)
from tfserving.client.proxies import find_shared_proxy
from tfserving.client.status_errors import make_error
from tfserving.errors import FailedPreconditionError, TfServingError

if TYPE_CHECKING:
    from tfserving.client.rpc_codec import RpcCodec


class RpcTransport(ClientBase):
    """Channels and options; `TfRpcClient` describes the arguments.

    `_api` is the module with gRPC's `insecure_channel` and `secure_channel`; for `_owner` see `Channels`.
    """

    _api: ClassVar[Any]
    _owner: ClassVar[Callable[[], Hashable] | None] = None

    def __init__(
        self,
        address: str | Sequence[str],
        model_name: str | None = None,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        keepalive: Keepalive | None = Keepalive(),  # noqa: B008
        tls: Tls | None = None,
        metadata: Metadata = (),
        proxy: ProxyOption = UNSET,
        channels: int = 1,
        channel_options: Sequence[tuple[str, Any]] = (),
        max_response_bytes: int | None = DEFAULT_MAX_RESPONSE_BYTES,
        split: Mapping[str, float] | None = None,
    ) -> None:
        check_max_bytes(max_response_bytes)
        targets = Targets(address, DEFAULT_RPC_PORT)
        arguments = {
            "address": address,
            "model_name": model_name,
            "timeout": timeout,
            "retry": retry,
            "keepalive": keepalive,
            "tls": tls,
            "metadata": metadata,
            "proxy": proxy,
            "channels": channels,
            "channel_options": channel_options,
            "max_response_bytes": max_response_bytes,
            "split": dict(split) if isinstance(split, Mapping) else split,
        }
        super().__init__(targets.text, model_name, timeout, retry, split, arguments)
        # of options with the same name, gRPC takes the first
        options = [*channel_options, *options_for(targets, keepalive, tls, channels, max_response_bytes)]
        credentials = credentials_for(tls) if tls else None

        self._proxy = found = find_shared_proxy(proxy, targets.addresses)
        if found is not None:
            targets.leave_to_proxy()

        def connect(target: str) -> Any:
            target, proxy_options = through_proxy(target, targets.addresses, found)
            if credentials is None:
                return self._api.insecure_channel(target, options=[*options, *proxy_options])
            return self._api.secure_channel(target, credentials, options=[*options, *proxy_options])

        self._channels = Channels(targets, connect, channels, type(self)._owner)
        self._metadata = metadata if callable(metadata) else pairs_of(metadata)

    def _make_codec(self) -> RpcCodec:
        from tfserving.client.rpc_codec import RpcCodec

        return RpcCodec()

    def _translate(self, error: grpc.RpcError, model: str | None) -> TfServingError:
        code = error.code().name
        return make_error(
            code,
            error.details() or "",
            address=self.address,
            model=model,
            proxy=self._proxy if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else None,
        )

    def _make_closed_error(self, error: BaseException, model: str | None) -> TfServingError:
        return FailedPreconditionError(
            f"{self.address}: the client was closed during the call ({error})",
            address=self.address,
            model=model,
        )
