"""The gRPC server: port, UNIX socket, TLS, the health service and reflection."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, enable_server_reflection

from tfserving.errors import ConfigError, UnavailableError
from tfserving.repository.config_text import read_text_file
from tfserving.server.grpc import grpc_health
from tfserving.server.grpc.grpc_api import GrpcApi
from tfserving.server.grpc.grpc_health import HealthService
from tfserving.server.grpc.grpc_workarounds import create_server, warm_up_transport
from tfserving.server.grpc.native_front import create_native_server
from tfserving.server.grpc.request_timeout import RequestTimeout
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
        self._is_native = options.front == "native"
        if self._is_native:
            self._server = create_native_server(arguments)
        else:
            timeout = limits.idle_timeout_in_ms / 1e3
            self._server = create_server(arguments, RequestTimeout(timeout) if timeout > 0 else None)
        api.add_to(self._server)
        self._health = HealthService(availability)
        names = [services.PREDICTION_SERVICE, services.MODEL_SERVICE, SERVICE_NAME]
        if options.health_service:
            self._health.add_to(self._server)
            names.append(grpc_health.SERVICE)
        enable_server_reflection(names, self._server, pool=messages.POOL)

    async def start(self, port: BoundPort | None) -> None:
        """Open the port and the UNIX socket.

        Raises:
            UnavailableError: one of them cannot be opened.
        """
        if not self._is_native:
            await warm_up_transport()
        if port is not None:
            addresses = port.addresses
            if self._is_native and len(addresses) > 1:
                raise UnavailableError(
                    f"--grpc_front=native cannot listen on several addresses ({', '.join(addresses)}); give "
                    "one as --host"
                )
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
