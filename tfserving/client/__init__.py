"""Clients for TensorFlow Serving and the embedded server: gRPC and REST, blocking and asyncio.

They do not require TensorFlow. Clients and signatures are imported on first use: a gRPC client imports
neither requests nor aiohttp, and imports numpy on its first call.
"""

import importlib
from typing import TYPE_CHECKING

from tfserving.client.options import Keepalive as Keepalive
from tfserving.client.options import Retry as Retry
from tfserving.client.options import Tls as Tls
from tfserving.client.types import Classification as Classification
from tfserving.client.types import RowResult as RowResult
from tfserving.client.types import VersionStatus as VersionStatus
from tfserving.errors import ConfigError as ConfigError
from tfserving.errors import DeadlineError as DeadlineError
from tfserving.errors import ExhaustedError as ExhaustedError
from tfserving.errors import FailedPreconditionError as FailedPreconditionError
from tfserving.errors import InvalidInputError as InvalidInputError
from tfserving.errors import NotFoundError as NotFoundError
from tfserving.errors import PermissionDeniedError as PermissionDeniedError
from tfserving.errors import ProtocolError as ProtocolError
from tfserving.errors import TfServingError as TfServingError
from tfserving.errors import UnavailableError as UnavailableError
from tfserving.errors import UnsupportedError as UnsupportedError

if TYPE_CHECKING:
    from tfserving.client.async_rest_client import AsyncTfRestClient as AsyncTfRestClient
    from tfserving.client.async_rpc_client import AsyncTfRpcClient as AsyncTfRpcClient
    from tfserving.client.rest_client import TfRestClient as TfRestClient
    from tfserving.client.rpc_client import TfRpcClient as TfRpcClient
    from tfserving.wire.signatures import Signature as Signature
    from tfserving.wire.signatures import TensorInfo as TensorInfo
    from tfserving.wire.signatures import describe as describe

# Type checkers do not run __getattr__, so they need the imports above too.
_LAZY = {
    "AsyncTfRestClient": "tfserving.client.async_rest_client",
    "AsyncTfRpcClient": "tfserving.client.async_rpc_client",
    "TfRestClient": "tfserving.client.rest_client",
    "TfRpcClient": "tfserving.client.rpc_client",
    "Signature": "tfserving.wire.signatures",
    "TensorInfo": "tfserving.wire.signatures",
    "describe": "tfserving.wire.signatures",
}

# Hidden from type checkers: they read __all__ only if it is a literal, and would accept misspelt names.
if not TYPE_CHECKING:
    __all__ = [*_LAZY, *(name for name, value in globals().items() if isinstance(value, type))]

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return value

    def __dir__():
        return sorted(__all__)
