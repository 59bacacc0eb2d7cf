import asyncio
import subprocess
import threading

import pytest

from tests.client.clients import Blocking, make_client
from tests.client.fakes import FakeRestServer, FakeRpcServer, FakeService
from tfserving.client import Retry


@pytest.fixture
def service():
    """A model "half" with y = x / 2 + version, and its versions 1 and 2; tests change it as they need."""
    return FakeService()


@pytest.fixture
def rpc_server(service):
    with FakeRpcServer(service) as server:
        yield server


@pytest.fixture
def rest_server(service):
    with FakeRestServer(service) as server:
        yield server


@pytest.fixture(params=["rpc", "aio", "rest", "aio_rest"])
def client(request, rpc_server, rest_server):
    """Each of the four clients; the asyncio ones behind methods that wait."""
    address = rest_server.address if "rest" in request.param else rpc_server.address
    loop = asyncio.new_event_loop()
    wrapped = Blocking(make_client(request.param, address, "half", retry=Retry(first_pause=0.001)), loop)
    yield wrapped
    wrapped.close()
    loop.close()


@pytest.fixture
def blocked():
    """A hook for `FakeService.before` that holds the call until the test is over."""
    over = threading.Event()
    yield lambda method: over.wait(60)
    over.set()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority, and a server and a client that it vouches for; the server as "tf.example"."""
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
