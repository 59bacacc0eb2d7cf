"""Connections through a real HTTP proxy (proxy.py), and the rules of when to use one."""

import asyncio
import contextlib
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

from tests.client.clients import Blocking, make_client
from tests.client.fakes import FakeRestServer, FakeRpcServer
from tfserving.client import Retry, TfRpcClient, Tls
from tfserving.client.addresses import Address
from tfserving.client.options import UNSET
from tfserving.client.proxies import find_proxy
from tfserving.errors import (
    InvalidInputError,
    PermissionDeniedError,
    ProtocolError,
    TfServingError,
    UnavailableError,
)

ROOT = Path(__file__).parents[2]
VARIABLES = ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No proxies in the environment; sets those that it is called with."""
    for name in (*VARIABLES, *(name.upper() for name in VARIABLES), "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)

    def set_variables(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_variables


class ProxyProcess:
    def __init__(self, *arguments):
        command = [sys.executable, "-m", "tests.client.proxy_process", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.address = f"127.0.0.1:{int(self.process.stdout.readline())}"
        self.requests = []  # "METHOD HOST:PORT"
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.requests.append(line.strip())

    def end(self):
        self.process.terminate()
        self.process.wait()
        self._thread.join()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def proxy():
    process = ProxyProcess()
    yield process
    process.end()


@pytest.fixture(scope="module")
def proxy_with_password():
    process = ProxyProcess("user:p\u00e4ss")
    yield process
    process.end()


@pytest.fixture
def port(kind, rpc_server, rest_server):
    return rest_server.port if "rest" in kind else rpc_server.port


@pytest.fixture
def make(kind):
    """Makes a client from an address and options; methods of asyncio clients block."""
    loop = asyncio.new_event_loop()
    with contextlib.ExitStack() as ends:
        ends.callback(loop.close)

        def one(address, **options):
            options = {"retry": Retry(attempts=1), **options}
            client = Blocking(make_client(kind, address, "half", **options), loop)
            ends.callback(client.close)
            return client

        yield one


def test_calls_go_through_the_proxy_of_the_option(make, kind, port, proxy, eventually):
    client = make(f"tf.example:{port}", proxy=f"http://{proxy.address}")
    assert client.infer([1])["y"].tolist() == [2.5]
    method = "GET" if "rest" in kind else "CONNECT"
    eventually(lambda: f"{method} tf.example:{port}" in proxy.requests)
    assert make(f"127.0.0.1:{port}", proxy=proxy.address).infer([1])["y"].tolist() == [2.5]
    # the option applies to loopback addresses too
    eventually(lambda: f"{method} 127.0.0.1:{port}" in proxy.requests)


def test_calls_to_several_servers_go_through_the_proxy(make, kind, port, proxy, eventually):
    method, host = ("GET", "tf.example") if "rest" in kind else ("CONNECT", "127.0.0.1")
    client = make([f"{host}:{port}"] * 2, proxy=f"http://{proxy.address.replace('127.0.0.1', 'localhost')}")
    assert client.infer([1])["y"].tolist() == [2.5]
    eventually(lambda: f"{method} {host}:{port}" in proxy.requests)


def test_calls_follow_the_environment(make, port, proxy, environment, eventually):
    environment(http_proxy=f"http://{proxy.address}")
    assert make(f"tf.example:{port}").infer([1])["y"].tolist() == [2.5]
    eventually(lambda: any(line.endswith(f" tf.example:{port}") for line in proxy.requests))
    for direct in ({"proxy": None}, {}):
        with pytest.raises(UnavailableError) as caught:  # this machine cannot resolve the name
            make(f"tf.example:{port}", **direct).status()
        assert "proxy" not in str(caught.value)
        environment(no_proxy="other,.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_calls_to_loopback_addresses_ignore_the_environment(make, port, environment, host):
    environment(http_proxy="http://127.0.0.1:1", grpc_proxy="http://127.0.0.1:1", all_proxy="127.0.0.1:1")
    assert make(f"{host}:{port}").infer([1])["y"].tolist() == [2.5]


def test_calls_to_unix_sockets_ignore_the_environment(tmp_path, service, environment):
    environment(http_proxy="http://127.0.0.1:1")
    path = f"unix:{tmp_path}/socket"
    with FakeRpcServer(service, listen=path), TfRpcClient(path, "half") as client:
        assert client.infer([1])["y"].tolist() == [2.5]
    with pytest.raises(InvalidInputError, match="a unix socket is not reachable through a proxy"):
        TfRpcClient(path, "half", proxy="http://127.0.0.1:1")


def test_sends_the_password_of_the_proxy(make, port, proxy_with_password):
    client = make(f"127.0.0.1:{port}", proxy=f"http://user:p%C3%A4ss@{proxy_with_password.address}")
    assert client.infer([1])["y"].tolist() == [2.5]


def test_a_rejected_password_is_permission_denied_and_not_shown(make, port, proxy_with_password):
    client = make(f"127.0.0.1:{port}", proxy=f"http://user:secret@{proxy_with_password.address}")
    words = (
        rf"127.0.0.1:{port} through the proxy {proxy_with_password.address}, model 'half': .*407.*USER:PASS"
    )
    with pytest.raises(PermissionDeniedError, match=words) as caught:
        client.infer([1])
    errors = (caught.value, caught.value.__cause__, caught.value.__context__)
    assert "secret" not in "".join(f"{error} {error!r} {getattr(error, '__dict__', '')}" for error in errors)
    assert "secret" not in repr(client.wrapped)


def test_errors_from_the_proxy_name_it(make, port, proxy):
    for address in ("127.0.0.1:1", f"blocked.example:{port}"):
        with pytest.raises(
            TfServingError, match=rf"{address} through the proxy {proxy.address}, .*(502|403)"
        ):
            make(address, proxy=proxy.address).status()
    with pytest.raises(UnavailableError, match=r"through the proxy 127\.0\.0\.1:1, .*pass proxy=None"):
        make(f"tf.example:{port}", proxy="127.0.0.1:1").status()


def test_errors_from_the_server_do_not_name_the_proxy(make, port, proxy):
    with pytest.raises(TfServingError, match="nobody") as caught:
        make(f"127.0.0.1:{port}", proxy=proxy.address).status("nobody")
    assert "proxy" not in str(caught.value)


@pytest.mark.parametrize("kind", ["rest", "aio_rest"], indirect=True)
def test_a_page_of_the_proxy_is_a_protocol_error_that_names_it(make, service, port, proxy):
    service.garbage = b"<html>please log in</html>"
    client = make(f"127.0.0.1:{port}", proxy=proxy.address)
    with pytest.raises(ProtocolError, match=f"through the proxy {proxy.address}, .*please log in"):
        client.status()


def test_tls_through_a_proxy_verifies_the_server(make, kind, service, certificates, proxy, eventually):
    def read(name):
        return (certificates / name).read_bytes()

    if "rest" in kind:
        server = FakeRestServer(service)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        server.encrypt(context)
    else:
        pairs = [(read("server.key"), read("server.pem"))]
        server = FakeRpcServer(service, credentials=grpc.ssl_server_credentials(pairs))
    ca = certificates / "ca.pem"
    with server:
        for address, tls in (
            (f"tf.example:{server.port}", Tls(ca=ca)),
            (f"127.0.0.1:{server.port}", Tls(ca=ca, server_name="tf.example")),
        ):
            assert make(address, tls=tls, proxy=proxy.address).infer([1])["y"].tolist() == [2.5]
            eventually(lambda: f"CONNECT {address}" in proxy.requests)  # noqa: B023
        with pytest.raises(UnavailableError, match="through the proxy"):
            make(f"127.0.0.1:{server.port}", tls=Tls(ca=ca), proxy=proxy.address).status()


def test_rejects_addresses_with_and_without_a_proxy_in_one_grpc_client(environment):
    environment(http_proxy="http://127.0.0.1:1")
    with pytest.raises(InvalidInputError, match="some of these addresses need a proxy and others do not"):
        TfRpcClient("127.0.0.1:1,a:1", "half")


def test_an_unresolvable_proxy_is_unavailable():
    with TfRpcClient("a.invalid:1,127.0.0.1:1", "half", proxy="nobody.invalid:1") as client:
        with pytest.raises(UnavailableError, match=r"nobody\.invalid:1 does not resolve"):
            client.status()


@pytest.mark.parametrize(
    ("scheme", "variables", "found"),
    [
        ("grpc", {"grpc_proxy": "a:1", "https_proxy": "b:1", "http_proxy": "c:1"}, "a:1"),
        ("grpc", {"https_proxy": "b:1", "http_proxy": "c:1"}, "b:1"),
        ("grpc", {"http_proxy": "c:1"}, "c:1"),
        ("grpc", {"HTTP_PROXY": "c:1", "all_proxy": "d:1"}, None),
        ("grpc", {"grpc_proxy": "", "http_proxy": "c:1"}, None),
        ("http", {"http_proxy": "http://a", "HTTP_PROXY": "b:1"}, "a:80"),
        ("http", {"HTTP_PROXY": "b:1"}, "b:1"),
        ("http", {"HTTP_PROXY": "b:1", "REQUEST_METHOD": "GET"}, None),
        ("http", {"https_proxy": "b:1", "grpc_proxy": "c:1"}, None),
        ("https", {"http_proxy": "a:1", "HTTPS_PROXY": "https://b"}, "b:443"),
        ("https", {"all_proxy": " http://[::1]:5/ "}, "[::1]:5"),
    ],
)
def test_the_variables_depend_on_the_scheme(environment, scheme, variables, found):
    environment(**variables)
    proxy = find_proxy(UNSET, scheme, Address("host", 9))
    assert (proxy and str(proxy)) == found


@pytest.mark.parametrize(
    ("host", "no_proxy", "is_direct"),
    [
        ("a.example", "a.example", True),
        ("A.example.", "b, a.EXAMPLE", True),
        ("a.example", "example", True),
        ("a.example", ".example", True),
        ("a.example", "*.example", True),
        ("example", ".example", True),
        ("a.example", "ample", False),
        ("a.example", "a.example:9", True),
        ("a.example", "a.example:8", False),
        ("a.example", "*", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "2.3", False),
        ("10.1.2.3", "11.0.0.0/8,10.0.0.0/x", False),
        ("fd00::1", "fd00:0::1", True),
        ("fd00::1", "[fd00::1]:9", True),
        ("fd00::1", "fd00::/16", True),
        ("127.0.0.2", "", True),
        ("::1", "", True),
        ("::ffff:127.0.0.1", "", True),
        ("0.0.0.0", "", True),
        ("LOCALHOST", "", True),
        ("a.localhost", "", True),
        ("notlocalhost", ", ,", False),
    ],
)
def test_no_proxy_and_loopback_addresses_are_direct(environment, host, no_proxy, is_direct):
    environment(http_proxy="p:1", no_proxy=no_proxy)
    for scheme in ("grpc", "http"):
        assert (find_proxy(UNSET, scheme, Address(host, 9)) is None) is is_direct
    assert find_proxy("p:1", "grpc", Address(host, 9)), "the option ignores no_proxy"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("socks5://u:secret@a:1", r"proxy='socks5://\*\*\*@a:1': socks5 proxies are not supported"),
        ("http://u:secret@a:x", r"proxy='http://\*\*\*@a:x' is not a valid proxy: .*'x' is not a valid port"),
        ("http://u:secret@a/path", "is not a valid proxy"),
        ("u:secret@", "is not a valid proxy"),
        ("http://u:\ud800@a", "is not a valid proxy"),
        ("http://a\ud800", "is not a valid proxy"),
        ("", "is not a valid proxy"),
        (5, "proxy is of type int"),
    ],
)
def test_rejects_invalid_proxies_without_showing_their_password(kind, option, words):
    with pytest.raises(InvalidInputError, match=words) as caught:
        make_client(kind, "a:1", "half", proxy=option)
    assert "secret" not in str(caught.value)


def test_rejects_a_tls_proxy_only_for_grpc(environment):
    environment(https_proxy="https://a:1")
    assert find_proxy(UNSET, "https", Address("host", 9)).url == "https://a:1"
    with pytest.raises(InvalidInputError, match="https_proxy='https://a:1': https proxies are not supported"):
        find_proxy(UNSET, "grpc", Address("host", 9))
