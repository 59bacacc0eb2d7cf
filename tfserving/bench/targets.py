"""The servers of an address, resolved for the load generator."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from tfserving.bench.load_connection import LoadTarget
from tfserving.client.addresses import Address, parse_address, split_addresses
from tfserving.client.options import CONNECT_TIMEOUT, DEFAULT_RPC_PORT, Tls
from tfserving.client.rest_endpoints import RestEndpoints
from tfserving.errors import UnavailableError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def resolve_targets(
    address: str, *, is_grpc: bool, tls: Tls | None, headers: Sequence[tuple[str, str]]
) -> tuple[LoadTarget, ...]:
    """Connect to each server of an address once, and return where it is.

    Args:
        address: as for the clients: host:port, for REST also a URL; several as a comma-separated list.

    Raises:
        InvalidInputError: an address is not valid.
        UnavailableError: a server cannot be reached.
    """
    make = _grpc_targets if is_grpc else _rest_targets
    return tuple(make(address, tls, tuple(headers)))


def _grpc_targets(
    address: str, tls: Tls | None, headers: tuple[tuple[str, str], ...]
) -> Iterator[LoadTarget]:
    for part in split_addresses(address):
        server = parse_address(part, DEFAULT_RPC_PORT)
        yield _target(server, "", server.host if tls else None, tls, headers)


def _rest_targets(
    address: str, tls: Tls | None, headers: tuple[tuple[str, str], ...]
) -> Iterator[LoadTarget]:
    endpoints = RestEndpoints(address, tls=tls is not None, proxy=None)
    for _ in split_addresses(address):
        endpoint = endpoints.pick()
        url = urlsplit(endpoint.url)
        server = parse_address(url.netloc, _DEFAULT_PORTS[url.scheme])
        own = () if endpoint.authorization is None else (("authorization", endpoint.authorization),)
        yield _target(server, url.path, server.host if url.scheme == "https" else None, tls, headers or own)


def _target(
    server: Address, prefix: str, tls_name: str | None, tls: Tls | None, headers: tuple[tuple[str, str], ...]
) -> LoadTarget:
    try:
        with socket.create_connection((server.host, server.port), CONNECT_TIMEOUT) as found:
            family, peer = found.family, found.getpeername()
    except OSError as error:
        reason = error.strerror or error
        raise UnavailableError(
            f"{server}: {reason}; start a server, or pass another --address", address=str(server)
        ) from error
    files = (tls.ca, tls.certificate, tls.key) if tls else (None, None, None)
    ca, certificate, key = (None if path is None else str(path) for path in files)
    name = tls.server_name if tls is not None and tls.server_name and tls_name else tls_name
    return LoadTarget(family, peer, str(server), prefix, name, ca, headers, certificate, key)
