"""The gRPC server around the API: ports, TLS, the health service and reflection."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf import text_format
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, enable_server_reflection

from tfserving.errors import ConfigError, UnavailableError
from tfserving.server.grpc import grpc_health
from tfserving.server.grpc.grpc_api import GrpcApi
from tfserving.server.grpc.grpc_health import Health
from tfserving.server.grpc.grpc_workarounds import exercise, grpc_server
from tfserving.wire import messages, services

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GrpcOptions:
    """Where and how the gRPC API is served.

    Attributes:
        host, port: 0 opens no port.
        socket_path: a UNIX socket, "" for none.
        ssl: server credentials for the port, None for plaintext. The UNIX socket is always plaintext.
        arguments: channel arguments as `key=value` pairs separated by commas.
        health: whether the health service is offered.
    """

    host: str = "0.0.0.0"
    port: int = 8500
    socket_path: str = ""
    ssl: grpc.ServerCredentials | None = None
    arguments: str = ""
    health: bool = False


class GrpcServer:
    """Serves until stopped. `availability` tells for each configured model whether it can be called."""

    def __init__(
        self, api: GrpcApi, options: GrpcOptions, availability: Callable[[], dict[str, bool]]
    ) -> None:
        self._options = options
        self._server = grpc_server(_channel_arguments(options.arguments))
        api.add_to(self._server)
        self._health = Health(availability)
        names = [services.PREDICTION_SERVICE, services.MODEL_SERVICE, SERVICE_NAME]
        if options.health:
            self._health.add_to(self._server)
            names.append(grpc_health.SERVICE)
        enable_server_reflection(names, self._server, pool=messages.POOL)

    async def start(self, bound: socket.socket | None) -> None:
        """Opens the port that `bound` kept free, and the UNIX socket.

        Raises:
            UnavailableError: the port or the path cannot be had.
        """
        options = self._options
        await exercise()
        try:
            if bound is not None:
                bound.close()
                host = f"[{options.host}]" if ":" in options.host else options.host
                address = f"{host}:{options.port}"
                if options.ssl is None:
                    self._server.add_insecure_port(address)
                else:
                    self._server.add_secure_port(address, options.ssl)
                log.info("gRPC API at %s%s", address, " (TLS)" if options.ssl else "")
            if options.socket_path:
                self._server.add_insecure_port(f"unix:{options.socket_path}")
                log.info("gRPC API at unix:%s", options.socket_path)
        except RuntimeError as error:
            # gRPC tells of no other reason
            keys = " (or the keys and certificates of --ssl_config_file are not right)" if options.ssl else ""
            raise UnavailableError(f"the gRPC API cannot be opened: {error}{keys}") from error
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Takes no more calls, and gives those in flight `grace` seconds."""
        self._health.stop()
        await self._server.stop(grace)


def read_ssl_config(path: str) -> grpc.ServerCredentials:
    """Server credentials from an SSLConfig in text format, with keys and certificates in PEM within it.

    Raises:
        ConfigError: the file cannot be read, does not parse, or lacks the key or the certificate.
    """
    config = messages.SSLConfig()
    try:
        text_format.Parse(Path(path).read_text(encoding="utf-8"), config)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigError(f"--ssl_config_file={path}: {error}") from error
    if not config.server_key or not config.server_cert:
        raise ConfigError(f"--ssl_config_file={path}: needs server_key and server_cert, each as PEM text")
    if config.client_verify and not config.custom_ca:
        raise ConfigError(
            f"--ssl_config_file={path}: client_verify needs custom_ca, the authority of the clients"
        )
    pair = (config.server_key.encode(), config.server_cert.encode())
    return grpc.ssl_server_credentials([pair], config.custom_ca.encode() or None, config.client_verify)


def _channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """Ours, then those given: no limit on messages, and no port shared with another server.

    Raises:
        ConfigError: not `key=value` pairs.
    """
    arguments: dict[str, int | str] = {
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": 0,
    }
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--grpc_channel_arguments: {pair!r} is no key=value")
        try:
            arguments[key] = int(value)
        except ValueError:
            arguments[key] = value
            continue
        if not -(2**31) <= int(value) < 2**31:
            raise ConfigError(f"--grpc_channel_arguments: {pair!r} is no integer of 32 bits")
    return list(arguments.items())
