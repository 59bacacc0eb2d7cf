import asyncio
import contextlib
import subprocess
import sys
import threading

import pytest

from tests.client.clients import Blocking, make_client
from tests.client.fakes import FakeRestServer, FakeRpcServer, FakeService
from tfserving.client import Retry


@pytest.fixture
def service():
    """A model "half" with y = x / 2 + version, and its versions 1 and 2; tests may change it."""
    return FakeService()


@pytest.fixture
def rpc_server(service):
    with FakeRpcServer(service) as server:
        yield server


@pytest.fixture
def rest_server(service):
    with FakeRestServer(service) as server:
        yield server


@pytest.fixture(params=["orjson", "json"])
def json_library(request, monkeypatch):
    """Each of the libraries for JSON."""
    if request.param == "json":
        monkeypatch.setitem(sys.modules, "orjson", None)


@pytest.fixture(params=["rpc", "aio", "rest", "aio_rest"])
def kind(request):
    """Each of the four clients."""
    return request.param


@pytest.fixture
def connect(kind, rpc_server, rest_server):
    """Makes a client for the fake server; methods of asyncio clients block."""
    address = rest_server.address if "rest" in kind else rpc_server.address
    loop = asyncio.new_event_loop()
    with contextlib.ExitStack() as stack:
        stack.callback(loop.close)

        def connect_with(model="half", **options):
            options = {"retry": Retry(first_pause=0.001), **options}
            client = Blocking(make_client(kind, address, model, **options), loop)
            stack.callback(client.close)
            return client

        yield connect_with


@pytest.fixture
def client(connect):
    return connect()


@pytest.fixture
def blocked():
    """A hook for `FakeService.before` that blocks the call until the test ends."""
    over = threading.Event()
    yield lambda method: over.wait(60)
    over.set()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A certificate authority, and certificates for a client and for the server "tf.example"."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    for name, extension in (
        ("server", "subjectAltName=DNS:tf.example"),
        ("client", "keyUsage=digitalSignature"),
    ):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "extensions").write_text(extension)
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "extensions"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        )
    return folder
