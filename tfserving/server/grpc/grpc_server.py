"""The gRPC server: port, UNIX socket, TLS, the health service and reflection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from tfserving.errors import ConfigError, UnavailableError
from tfserving.repository.config_text import read_text_file
from tfserving.server.grpc import grpc_health
from tfserving.server.grpc.aio_server import create_aio_server
from tfserving.server.grpc.core_server import CoreServer
from tfserving.server.grpc.grpc_api import GrpcApi
from tfserving.server.grpc.grpc_health import HealthService
from tfserving.server.ports import BoundPort
from tfserving.server.server_options import GrpcOptions, LimitOptions
from tfserving.wire import messages, services

log = logging.getLogger(__name__)


class GrpcServer:
    """Serves the gRPC API from `start` to `stop`.

    Args:
        availability: returns for each configured model whether it is available.
        limits: bound the connections.

    Attributes:
        verifies_clients: whether a client must have a certificate.

    Raises:
        ConfigError: the SSL config file or the channel arguments are invalid.
    """

    def __init__(
        self,
        api: GrpcApi,
        options: GrpcOptions,
        availability: Callable[[], dict[str, bool]],
        limits: LimitOptions,
    ) -> None:
        self._socket_path = options.socket_path
        self._credentials: grpc.ServerCredentials | None = None
        self.verifies_clients = False
        if options.ssl_config_file:
            self._credentials, self.verifies_clients = _read_ssl_config(options.ssl_config_file)
        arguments = parse_channel_arguments(options.channel_arguments, limits)
        _CYGRPC_LOG.addFilter(_is_worth_logging)
        self._create = create_aio_server if options.front == "aio" else CoreServer
        self._server = self._create(arguments, max(0, limits.idle_timeout_in_ms) / 1e3 or None)
        api.add_to(self._server)
        self._health = HealthService(availability)
        names = [services.PREDICTION_SERVICE, services.MODEL_SERVICE, reflection.SERVICE_NAME]
        if options.health_service:
            self._health.add_to(self._server)
            names.append(grpc_health.SERVICE)
        # enable_server_reflection() takes no other servers than those of grpc
        add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(names, pool=messages.POOL), self._server
        )

    async def start(self, port: BoundPort | None) -> None:
        """Open the port and the UNIX socket.

        Raises:
            UnavailableError: one of them cannot be opened.
        """
        await _warm_up(self._create)
        if port is not None:
            addresses = port.addresses
            port.close()
            for address in addresses:
                self._open(address)
        if self._socket_path:
            self._open(f"unix:{self._socket_path}")
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Reject new requests, and wait up to `grace` seconds for those in flight."""
        self._health.stop()
        await self._server.stop(grace)

    def _open(self, address: str) -> None:
        try:
            if self._credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise UnavailableError(
                f"cannot open the gRPC API at {address}: {error}; another process may use the address"
            ) from error
        log.info("gRPC API listening at %s%s", address, " (TLS)" if self._credentials else "")


async def _warm_up(create: Callable[..., Any]) -> None:
    """Send one large message over a loopback connection.

    gRPC initializes on first use: without this, the first request of 600 kB takes 4 to 5 ms longer.
    """

    async def echo(message: bytes, _: Any) -> bytes:
        return message

    server = create(_NO_SIZE_LIMIT)
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_registered_method_handlers("tfserving.WarmUp", handlers)
    # RuntimeError: the machine has no 127.0.0.1; the server works without the warmup
    with contextlib.suppress(grpc.RpcError, RuntimeError):
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await asyncio.to_thread(_send_large_message, f"127.0.0.1:{port}")
    await server.stop(None)


def _send_large_message(address: str) -> None:
    options = (*_NO_SIZE_LIMIT, ("grpc.enable_http_proxy", 0))
    with grpc.insecure_channel(address, options) as channel:
        channel.unary_unary("/tfserving.WarmUp/Echo")(bytes(1 << 20), timeout=5)


_NO_SIZE_LIMIT = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

_CYGRPC_LOG = logging.getLogger("grpc._cython.cygrpc")


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether a record is not the traceback that any header with invalid bytes causes."""
    return not str(record.msg).startswith("Invalid encoding on")


def _read_ssl_config(path: str) -> tuple[grpc.ServerCredentials, bool]:
    """Server credentials, and whether clients are verified, from an SSLConfig in text format.

    It contains keys and certificates in PEM.
    """
    config = read_text_file(path, messages.SSLConfig(), f"--ssl_config_file={path}")
    if not config.server_key or not config.server_cert:
        raise ConfigError(
            f"--ssl_config_file={path}: server_key or server_cert is missing; give both as PEM text"
        )
    if config.client_verify and not config.custom_ca:
        raise ConfigError(
            f"--ssl_config_file={path}: client_verify is set without custom_ca; give the certificate of the "
            "authority that signs the clients' certificates"
        )
    for name in ("server_key", "server_cert", "custom_ca"):
        value = getattr(config, name)
        if value and "-----BEGIN " not in value:
            # Not the value: it may be a key in another form
            raise ConfigError(
                f"--ssl_config_file={path}: {name} is not PEM text (-----BEGIN ...); give the contents of "
                "the PEM file, not its path"
            )
    pair = (config.server_key.encode(), config.server_cert.encode())
    credentials = grpc.ssl_server_credentials([pair], config.custom_ca.encode() or None, config.client_verify)
    _check_credentials(credentials, path)
    return credentials, bool(config.client_verify)


def _check_credentials(credentials: grpc.ServerCredentials, path: str) -> None:
    """Open a port with the credentials for a moment: gRPC parses them only then."""
    probe = grpc.server(ThreadPoolExecutor(1))
    try:
        probe.add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"--ssl_config_file={path}: gRPC rejects the key and certificates; check that each is valid PEM "
            "text, and that server_key is the key of server_cert"
        ) from error
    finally:
        probe.stop(None)


def parse_channel_arguments(text: str, limits: LimitOptions) -> list[tuple[str, int | str]]:
    """The arguments of the gRPC server: our defaults, overridden by `key=value` pairs separated by commas.

    By default messages have no size limit, the port is not shared with another process, and connections are
    limited.

    Raises:
        ConfigError: an entry is not a `key=value` pair, or its integer has more than 32 bits.
    """
    arguments: dict[str, int | str] = {
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": 0,
        "grpc.max_concurrent_streams": limits.max_concurrent_streams,
        # It counts streams that have ended and are not freed yet, and so refuses those of clients that keep
        # to the limit: with 200 requests at a time on one connection, half of them fail with UNAVAILABLE.
        "grpc.http.overload_protection": 0,
        "grpc.max_allowed_incoming_connections": limits.max_connections,
    }
    if limits.idle_timeout_in_ms > 0:
        arguments["grpc.max_connection_idle_ms"] = limits.idle_timeout_in_ms
    if limits.head_timeout_in_ms > 0:
        arguments["grpc.server_handshake_timeout_ms"] = limits.head_timeout_in_ms
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--grpc_channel_arguments: {pair!r} is not a key=value pair")
        try:
            arguments[key] = int(value)
        except ValueError:
            arguments[key] = value
            continue
        if not -(2**31) <= int(value) < 2**31:
            raise ConfigError(f"--grpc_channel_arguments: {pair!r} does not fit a 32-bit integer")
    return list(arguments.items())
