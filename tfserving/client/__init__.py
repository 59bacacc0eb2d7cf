"""Clients of TensorFlow Serving, and of the embedded server: gRPC and REST, blocking and asyncio. No
TensorFlow.

Names are imported when they are used: a gRPC call needs neither requests nor aiohttp.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfserving.client.async_rest_client import AsyncTfRestClient
    from tfserving.client.async_rpc_client import AsyncTfRpcClient
    from tfserving.client.options import Keepalive, Retry, Tls
    from tfserving.client.rest_client import TfRestClient
    from tfserving.client.rpc_client import TfRpcClient
    from tfserving.client.types import Classification, VersionStatus
    from tfserving.errors import (
        ConfigError,
        DeadlineError,
        ExhaustedError,
        FailedPreconditionError,
        InvalidInputError,
        NotFoundError,
        PermissionDeniedError,
        ProtocolError,
        TfServingError,
        UnavailableError,
        UnsupportedError,
    )
    from tfserving.wire.signatures import Signature, TensorInfo, describe

_MODULES = {
    "tfserving.client.rpc_client": ("TfRpcClient",),
    "tfserving.client.async_rpc_client": ("AsyncTfRpcClient",),
    "tfserving.client.rest_client": ("TfRestClient",),
    "tfserving.client.async_rest_client": ("AsyncTfRestClient",),
    "tfserving.client.options": ("Keepalive", "Retry", "Tls"),
    "tfserving.client.types": ("Classification", "VersionStatus"),
    "tfserving.wire.signatures": ("Signature", "TensorInfo", "describe"),
    "tfserving.errors": (
        "ConfigError",
        "DeadlineError",
        "ExhaustedError",
        "FailedPreconditionError",
        "InvalidInputError",
        "NotFoundError",
        "PermissionDeniedError",
        "ProtocolError",
        "TfServingError",
        "UnavailableError",
        "UnsupportedError",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [  # noqa: RUF022 - the clients first
    "TfRpcClient",
    "AsyncTfRpcClient",
    "TfRestClient",
    "AsyncTfRestClient",
    "Keepalive",
    "Retry",
    "Tls",
    "Classification",
    "VersionStatus",
    "Signature",
    "TensorInfo",
    "describe",
    "TfServingError",
    "ConfigError",
    "DeadlineError",
    "ExhaustedError",
    "FailedPreconditionError",
    "InvalidInputError",
    "NotFoundError",
    "PermissionDeniedError",
    "ProtocolError",
    "UnavailableError",
    "UnsupportedError",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
