"""What the blocking and the asyncio gRPC client have in common, which is all but the waiting."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import grpc

from tfserving.client.addresses import Targets
from tfserving.client.channels import Channels, credentials_for, options_for
from tfserving.client.options import (
    DEFAULT_RPC_PORT,
    DEFAULT_TIMEOUT,
    Keepalive,
    Metadata,
    Retry,
    Tls,
    pairs_of,
)
from tfserving.client.status_errors import failure
from tfserving.errors import FailedPreconditionError, TfServingError

if TYPE_CHECKING:
    from tfserving.client.call_flows import Calls


class RpcTransport:
    """Channels and options; arguments as `TfRpcClient` describes them.

    `_api` is the module with gRPC's `insecure_channel` and `secure_channel`, `_owner` what a channel belongs
    to.
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
        channels: int = 1,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        targets = Targets(address, DEFAULT_RPC_PORT)
        options = [*options_for(targets, keepalive, tls, channels), *channel_options]
        credentials = credentials_for(tls) if tls else None

        def make(target: str) -> Any:
            if credentials is None:
                return self._api.insecure_channel(target, options=options)
            return self._api.secure_channel(target, credentials, options=options)

        self.address = targets.text
        self.model_name = model_name
        self._channels = Channels(targets, make, channels, type(self)._owner)
        # a function is asked before each call, anything else is read once
        self._metadata = metadata if callable(metadata) else pairs_of(metadata)
        self._timeout = timeout
        self._retry = retry

    @cached_property
    def _calls(self) -> Calls:
        # What writes and reads messages is imported with the first call: it takes as long as all the rest.
        from tfserving.client.call_flows import Calls
        from tfserving.client.rpc_codec import RpcCodec

        return Calls(RpcCodec(), self.address, self.model_name, timeout=self._timeout, retry=self._retry)

    def _call_metadata(self) -> tuple[tuple[str, str], ...]:
        return pairs_of(self._metadata) if callable(self._metadata) else self._metadata

    def _failure(self, error: grpc.RpcError, model: str | None) -> TfServingError:
        return failure(error.code().name, error.details() or "", address=self.address, model=model)

    def _closed(self, error: BaseException, model: str | None) -> TfServingError:
        return FailedPreconditionError(
            f"{self.address}: the client was closed during the call ({error})",
            address=self.address,
            model=model,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, {self.model_name!r})"
