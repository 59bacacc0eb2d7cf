"""The base class of all four clients."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfserving.client.options import Retry, check_timeout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tfserving.client.call_flows import CallFlows
    from tfserving.client.label_split import LabelSplit
    from tfserving.client.rest_codec import RestCodec
    from tfserving.client.rpc_codec import RpcCodec

    # Where gRPC and REST differ: how requests are written and responses read.
    Codec = RpcCodec | RestCodec


class Arguments(dict[str, Any]):
    """The arguments of a constructor. They are not shown, since an address or a proxy can have a password."""

    def __repr__(self) -> str:
        return "Arguments(...)"


class ClientBase:
    """Holds what a client passes to its flows, which are made on the first call.

    A pickled client has the arguments of its constructor, and opens connections where it is unpickled.
    """

    def __init__(
        self,
        address: str,
        model_name: str | None,
        timeout: float | None,
        retry: Retry,
        split: Mapping[str, float] | None,
        arguments: dict[str, Any],
    ) -> None:
        check_timeout(timeout)
        self._split = None if split is None else _make_split(split, model_name)
        self.address = address
        self._arguments = Arguments(arguments)
        self.model_name = model_name
        self._timeout = timeout
        self._retry = retry

    def __reduce__(self) -> tuple[Any, ...]:
        return _create, (type(self), self._arguments)

    def _make_codec(self) -> Codec:
        raise NotImplementedError

    @cached_property
    def _flows(self) -> CallFlows:
        # numpy and protobuf, which the flows need, take longer to import than the client
        from tfserving.client.call_flows import CallFlows

        return CallFlows(
            self._make_codec(),
            self.address,
            self.model_name,
            timeout=self._timeout,
            retry=self._retry,
            split=self._split,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}, {self.model_name!r})"


def _make_split(split: Mapping[str, float], model_name: str | None) -> LabelSplit:
    # imports hashlib, which few clients need
    from tfserving.client.label_split import LabelSplit

    return LabelSplit(split, model_name)


def _create(cls: type[ClientBase], arguments: dict[str, Any]) -> ClientBase:
    return cls(**arguments)
