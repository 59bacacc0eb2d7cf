import asyncio
import socket

import pytest
import uvloop

from tests.server.fake_service import FakeService
from tfserving.errors import UnavailableError
from tfserving.server.ports import bind
from tfserving.server.rest.rest_server import make_rest_server, open_port
from tfserving.server.server_options import LimitOptions, RestOptions


@pytest.fixture
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_port_0_binds_nothing():
    with bind("127.0.0.1", 0, "port") as bound:
        assert bound is None


def test_a_bound_port_does_not_accept_connections_before_it_listens(free_port):
    with bind("127.0.0.1", free_port, "port") as bound:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", free_port), timeout=30)
        bound.listen()
        socket.create_connection(("127.0.0.1", free_port), timeout=30).close()


def test_a_port_in_use_is_an_error(free_port):
    with socket.create_server(("127.0.0.1", free_port)):
        with pytest.raises(UnavailableError, match=f"cannot bind --port={free_port} on 127.0.0.1: .*in use"):
            with bind("127.0.0.1", free_port, "port"):
                pass


@pytest.mark.parametrize("host", ["host.invalid", "a..b", "x" * 100])
def test_a_host_that_does_not_resolve_is_an_error(host):
    with pytest.raises(UnavailableError, match=f"cannot bind --port=1 on {host}"):
        with bind(host, 1, "port"):
            pass


def test_an_ipv6_address_is_in_brackets(free_port):
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        with bind("::1", free_port, "port") as bound:
            assert bound.address == f"[::1]:{free_port}"
    except UnavailableError:
        pytest.skip("no IPv6")


def resolve_localhost(monkeypatch, *addresses):
    """Let "localhost" have these IPv4 addresses."""
    resolve = socket.getaddrinfo

    def fake(host, port, *args, **options):
        if host != "localhost":
            return resolve(host, port, *args, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", fake)


def test_a_host_with_several_addresses_is_bound_on_each_once(monkeypatch, free_port):
    resolve_localhost(monkeypatch, "127.0.0.2", "127.0.0.1", "127.0.0.2")
    with bind("localhost", free_port, "port") as bound:
        assert bound.address == f"localhost:{free_port}"
        assert bound.addresses == [f"127.0.0.2:{free_port}", f"127.0.0.1:{free_port}"]
        bound.listen()
        for host in ("127.0.0.1", "127.0.0.2"):
            socket.create_connection((host, free_port), timeout=30).close()


def test_an_address_that_this_machine_lacks_is_skipped_if_another_can_be_bound(monkeypatch, free_port):
    resolve_localhost(monkeypatch, "192.0.2.1", "127.0.0.1")
    with bind("localhost", free_port, "port") as bound:
        assert bound.addresses == [f"127.0.0.1:{free_port}"]
    resolve_localhost(monkeypatch, "192.0.2.1")
    with pytest.raises(UnavailableError, match=r"on localhost: .*assign"):
        with bind("localhost", free_port, "port"):
            pass


def test_a_port_in_use_on_one_address_is_an_error(monkeypatch, free_port):
    resolve_localhost(monkeypatch, "127.0.0.2", "127.0.0.1")
    with socket.create_server(("127.0.0.1", free_port)):
        with pytest.raises(UnavailableError, match="in use"):
            with bind("localhost", free_port, "port"):
                pass
    with socket.create_server(("127.0.0.2", free_port)):
        pass


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_opening_rest_fails_if_another_server_has_opened_the_port(run, free_port):
    service = FakeService()

    async def start(port):
        await open_port(make_rest_server(service, RestOptions(), LimitOptions()), port)

    with bind("127.0.0.1", free_port, "rest_api_port") as ours:
        with bind("127.0.0.1", free_port, "rest_api_port") as theirs:
            theirs.listen()
            with pytest.raises(UnavailableError, match=f"cannot bind --rest_api_port={free_port}"):
                run(start(ours))
    service.close()
