"""The gRPC server of pygrpc-native, for --grpc_front=native: HTTP/2 in Rust, without the interpreter lock."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import grpc.aio

from tfserving.errors import ConfigError

log = logging.getLogger(__name__)

# It raises an error for these. The server sets them by default, for limits that do not apply here then.
_UNSUPPORTED = frozenset({"grpc.max_allowed_incoming_connections", "grpc.max_connection_idle_ms"})


def create_native_server(arguments: Sequence[tuple[str, int | str]]) -> grpc.aio.Server:
    """A server with the interface of `grpc.aio.Server`, for a single address without TLS.

    Args:
        arguments: of the gRPC server; limits of connections are left out.

    Raises:
        ConfigError: pygrpc-native is not installed, or does not support an argument.
    """
    try:
        import pygrpc_native.aio
    except ImportError as error:
        raise ConfigError(
            f"--grpc_front=native needs the package pygrpc-native ({error}); install it, or use "
            "--grpc_front=aio"
        ) from error
    log.warning(
        "--grpc_front=native: --max_connections, --idle_timeout_in_ms and --head_timeout_in_ms do not apply "
        "to gRPC; let only trusted callers or a proxy connect to it"
    )
    supported = [argument for argument in arguments if argument[0] not in _UNSUPPORTED]
    try:
        server: grpc.aio.Server = pygrpc_native.aio.server(options=supported)
    except ValueError as error:
        raise ConfigError(f"--grpc_channel_arguments with --grpc_front=native: {error}; omit it") from error
    return server
