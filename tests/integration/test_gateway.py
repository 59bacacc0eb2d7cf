"""deploy/gateway on a real Envoy, in front of fake model servers: y = x / 2 + the version of the group."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import random
import re
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import grpc
import pytest

from tests.client.fakes import FakeRestServer, FakeRpcServer, FakeService, half
from tests.embedded import ROOT
from tests.gateway import raw_http2
from tests.gateway.envoy import SOURCE, Backend, Gateway, copy_files, find_envoy, gateway, localize
from tests.integration.gateway_load import load
from tests.server.certificates import certificate
from tfserving.client import Retry, TfRestClient, TfRpcClient, Tls
from tfserving.errors import (
    DeadlineError,
    ExhaustedError,
    NotFoundError,
    PermissionDeniedError,
    TfServingError,
)
from tfserving.gateway.client_tokens import add_token, revoke_tokens
from tfserving.gateway.traffic_weights import write_weights
from tfserving.wire import services

STATUS = "/v1/models/digits"
PREDICT = f"{STATUS}:predict"
BODY = b'{"instances": [1.0]}'
GRPC_HEADERS = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))


def free_ports(count=3):
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def start_backends(stack, *versions):
    """Fake servers in their own processes: pairs of process and ports."""
    command = [sys.executable, "-m", "tests.gateway.backend_process"]
    processes = [
        stack.enter_context(subprocess.Popen([*command, str(version)], cwd=ROOT, stdout=subprocess.PIPE))
        for version in versions
    ]
    for process in processes:
        stack.callback(process.kill)
    return [(process, Backend(*map(int, process.stdout.readline().split()))) for process in processes]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """deploy/gateway/dynamic, a certificate, and a rate limit that no load reaches."""
    path = tmp_path_factory.mktemp("gateway")
    prepare(path)
    return path


def prepare(path: Path, *variants: str) -> None:
    copy_files(path, *variants)
    (path / "tls").mkdir(exist_ok=True)
    chain, key = certificate()
    (path / "tls" / "tls.crt").write_text(chain)
    (path / "tls" / "tls.key").write_text(key)
    limit_rate(path, 1_000_000)


def trust_clients(path: Path, chain: str) -> Path:
    """Write the certificate of the authority of clients; return its file."""
    (path / "tls").mkdir(exist_ok=True)
    file = path / "tls" / "client-ca.crt"
    file.write_text(chain)
    return file


def write_identity(path: Path, name: str, identity: tuple[str, str]) -> list[Path]:
    """Write a client's certificate and key; return their files."""
    files = [path / f"{name}.crt", path / f"{name}.key"]
    for file, text in zip(files, identity, strict=True):
        file.write_text(text)
    return files


def limit_rate(path: Path, tokens: int, interval: str = "1s") -> None:
    """Set the bucket of each client in rate_limit.yaml."""
    text = (SOURCE / "dynamic" / "rate_limit.yaml").read_text()
    old = "{max_tokens: 2000, tokens_per_fill: 1000, fill_interval: 1s}"
    assert text.count(old) == 1
    new = f"{{max_tokens: {tokens}, tokens_per_fill: {tokens}, fill_interval: {interval}}}"
    replace(path / "dynamic" / "rate_limit.yaml", text.replace(old, new))


def replace(path: Path, text: str) -> None:
    """Write a file as an operator does: a copy, renamed to its place."""
    copy = path.with_name(f".{path.name}.new")
    copy.write_text(text)
    copy.rename(path)


@pytest.fixture(scope="module")
def servers():
    """Two servers of version 1, and one of version 2."""
    with ExitStack() as stack:
        yield start_backends(stack, 1, 1, 2)


@pytest.fixture(scope="module")
def groups(servers):
    ports = [ports for _, ports in servers]
    return {"stable": ports[:2], "canary": ports[2:]}


@pytest.fixture(scope="module")
def token(directory):
    return add_token(directory / "dynamic", "load")[1]


@pytest.fixture(scope="module")
def running(directory, groups, token):
    with gateway(directory, free_ports(), groups) as started:
        yield started


@pytest.fixture
def start(tmp_path, groups):
    """Starts a gateway with its own files, which the test may change, and returns it with a token."""
    with ExitStack() as stack:

        def start_gateway(*variants: str, groups=groups, rate=None):
            prepare(tmp_path, *variants)
            token = None if variants else add_token(tmp_path / "dynamic", "client")[1]
            if rate is not None:
                limit_rate(tmp_path, rate, "3600s")
            return stack.enter_context(gateway(tmp_path, free_ports(), groups)), token

        yield start_gateway


@pytest.fixture(scope="module")
def recording(directory, token):
    """A gateway whose servers are in this process and record every request."""
    service = FakeService({"digits": {1: half(1)}})
    with FakeRpcServer(service) as rpc, FakeRestServer(service) as rest:
        backends = [Backend(rpc.port, rest.port)]
        with gateway(directory, free_ports(), {"stable": backends, "canary": backends}) as started:
            yield Recording(started, service)


class Recording:
    """A gateway and what reached its server."""

    def __init__(self, started: Gateway, service: FakeService) -> None:
        self.gateway = started
        self.service = service

    def requests(self) -> list[str]:
        """Methods and paths that reached the server since the last call, without health checks."""
        found = [name for name in self.service.methods if name != STATUS]
        self.service.methods.clear()
        return found


def trust(running: Gateway, protocol: str, identity: Sequence[Path] = ()) -> ssl.SSLContext:
    """The settings of a client, with the files of its certificate and key if it has a certificate."""
    context = ssl.create_default_context(cafile=running.directory / "tls" / "tls.crt")
    context.set_alpn_protocols([protocol])
    if identity:
        context.load_cert_chain(*identity)
    return context


def connect(running: Gateway, protocol: str, identity: Sequence[Path] = ()) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", running.port), timeout=20)
    connection = trust(running, protocol, identity).wrap_socket(plain, server_hostname="localhost")
    assert connection.selected_alpn_protocol() == protocol
    return connection


def send_rest(running, method, path, headers=None, body=None):
    """Status and body of one HTTP/1.1 request, whose path is sent as it is."""
    connection = http.client.HTTPSConnection(
        "localhost", running.port, timeout=60, context=trust(running, "http/1.1")
    )
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def send_http2(running, methods, path, *headers, identity=()):
    """Send a request without a body for each method on one connection; return the kinds of frames."""
    frames = b""
    for number, method in enumerate(methods):
        fields = {":method": method, ":scheme": "https", ":authority": "localhost", ":path": path}
        block = raw_http2.encode_headers([*((k.encode(), v.encode()) for k, v in fields.items()), *headers])
        flags = raw_http2.END_STREAM | raw_http2.END_HEADERS
        frames += raw_http2.frame(raw_http2.HEADERS, flags, 2 * number + 1, block)
    with connect(running, "h2", identity) as connection:
        return raw_http2.exchange(connection, frames, range(1, 2 * len(methods), 2))


def send_all_methods(running, path):
    """The HTTP/1.1 statuses of requests with each method, which are sent over both protocols."""
    send_http2(running, HTTP_METHODS, path, *GRPC_HEADERS)
    connection = http.client.HTTPSConnection("localhost", running.port, context=trust(running, "http/1.1"))
    statuses = set()
    with closing(connection):
        for method in HTTP_METHODS:
            connection.request(method, path)
            with connection.getresponse() as response:
                response.read()
                statuses.add(response.status)
    return statuses


def call_grpc(running, path, token=None, data=b"", headers=(), identity=()):
    """The status code and the message of a unary call."""
    files = [running.directory / "tls" / "tls.crt", *reversed(identity)]
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
    metadata = [*headers, *([("authorization", f"Bearer {token}")] if token else [])]
    with grpc.secure_channel(running.address, credentials) as channel:
        try:
            channel.unary_unary(path)(data, metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def authorization(token):
    return b"authorization", f"Bearer {token}".encode()


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def mark_log(running):
    """The number of lines of the access log, once it contains all requests so far. Envoy buffers lines."""
    path = f"/mark/{uuid.uuid4()}"
    send_rest(running, "GET", path)
    deadline = time.monotonic() + 30
    lines = running.access_log()
    while path not in [line["path"] for line in lines]:
        assert time.monotonic() < deadline, lines
        time.sleep(0.02)
        lines = running.access_log()
    return len(lines)


def wait_for_log(running, count, since):
    """The lines of the access log after the first `since`, once there are `count`."""
    deadline = time.monotonic() + 30
    while len(lines := running.access_log()[since:]) < count:
        assert time.monotonic() < deadline, lines
        time.sleep(0.02)
    return lines


# The files


def test_bootstrap_is_valid_and_uses_no_deprecated_field(directory):
    """Envoy 1.40 warns about fields that a later version removes."""
    config = directory / "envoy-validate.yaml"
    one = [Backend(1, 2)]
    config.write_text(localize((SOURCE / "envoy.yaml").read_text(), directory, free_ports(), {"stable": one}))
    command = [find_envoy(), "--mode", "validate", "--config-path", config, "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_dynamic_file_is_accepted(running):
    """`--mode validate` does not read them."""
    stats = running.stats()
    loaded = [
        "http.gateway.rds.models",
        "extension_config_discovery.http_filter.authentication",
        "extension_config_discovery.http_filter.rate_limit",
        "sds.server_certificate",
        "sds.client_ca",
    ]
    assert len(loaded) == len(list((SOURCE / "dynamic").iterdir()))
    for name in loaded:
        name = next(each for each in stats if each.endswith(f"{name}.update_success")).removesuffix(
            ".update_success"
        )
        assert stats[f"{name}.update_success"] >= 1, name
        assert stats[f"{name}.update_rejected"] == 0, name
        assert stats[f"{name}.update_failure"] == 0, name
    assert running.log == ""


@pytest.mark.parametrize("name", sorted(path.name for path in (SOURCE / "dynamic").iterdir()))
def test_a_file_with_a_typo_is_rejected_and_the_old_one_stays(start, name, eventually):
    running, token = start()
    path = running.dynamic / name
    good = path.read_text()
    replace(path, re.sub(r'"?name"?:', lambda match: match[0].replace("name", "nmae"), good, count=1))
    assert path.read_text() != good
    eventually(lambda: "nmae" in running.log)
    with rpc(running, token) as client:
        assert client.infer([1.0])["y"].tolist() == [1.5]


def rpc(running, token, **options):
    return TfRpcClient(running.address, "digits", **access(running, token, **options))


def rest(running, token, **options):
    return TfRestClient(f"https://{running.address}", "digits", **access(running, token, **options))


def access(running, token, *, identity=(None, None), **options):
    """The arguments of a client with a token, or with the files of its certificate and key."""
    chain, key = identity
    tls = Tls(ca=running.directory / "tls" / "tls.crt", certificate=chain, key=key)
    return {"tls": tls, "metadata": bearer(token) if token else {}, **options}


# Both protocols on one port


@pytest.mark.parametrize("connect_client", [rpc, rest])
def test_clients_call_through_the_gateway(running, token, connect_client):
    with connect_client(running, token) as client:
        assert client.infer([1.0, 3.0])["y"].tolist() == [1.5, 2.5]
        assert [status.state for status in client.status()] == ["AVAILABLE"]


def test_the_log_has_a_line_of_json_for_each_request(recording, token):
    running, since = recording.gateway, mark_log(recording.gateway)
    send_rest(running, "POST", PREDICT, {**bearer(token), "x-client-id": "forged"}, BODY)
    call_grpc(running, services.GET_MODEL_STATUS.path, token)
    send_rest(running, "GET", f"{STATUS}?access_token=secret", bearer(token))
    rest_line, grpc_line, query_line = wait_for_log(running, 3, since)
    assert rest_line["client"] == grpc_line["client"] == "load"
    assert (rest_line["method"], rest_line["path"], rest_line["status"]) == ("POST", PREDICT, 200)
    assert (rest_line["protocol"], rest_line["attempts"]) == ("HTTP/1.1", 1)
    assert rest_line["group"] == "stable-rest"
    assert (grpc_line["path"], grpc_line["grpc_status"]) == (services.GET_MODEL_STATUS.path, "NOT_FOUND")
    assert query_line["path"] == STATUS
    recording.requests()


def test_a_caller_cannot_set_its_name_retries_or_timeouts(recording, token):
    forged = {"x-client-id": "forged", "x-envoy-max-retries": "99", "x-envoy-upstream-rq-timeout-ms": "1"}
    call_grpc(recording.gateway, services.GET_MODEL_STATUS.path, token, headers=list(forged.items()))
    received = recording.service.metadata[-1]
    assert received["x-client-id"] == "load"
    assert [name for name in received if name.startswith("x-envoy-")] == ["x-envoy-external-address"]
    assert "authorization" not in received
    recording.requests()


# Authentication

PATHS = [
    "/",
    STATUS,
    PREDICT,
    f"{STATUS}/metadata",
    f"{STATUS}/versions/1:predict",
    "/v1/models/other",
    "/monitoring/prometheus/metrics",
    "/ready",
    "/stats/prometheus",
    "/config_dump",
    *(each.path for each in vars(services).values() if isinstance(each, services.Method)),
    "/tensorflow.serving.SessionService/SessionRun",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/tensorflow.ProfilerService/Profile",
]
HTTP_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]


def sign(claims, secret, **header):
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    parts = (json.dumps(part).encode() for part in ({"alg": "HS256", **header}, claims))
    text = ".".join(map(encode, parts))
    return f"{text}.{encode(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def test_nothing_answers_without_a_token(recording):
    running, since = recording.gateway, mark_log(recording.gateway)
    for path in PATHS:
        assert send_all_methods(running, path) == {401}
        assert call_grpc(running, path)[0] == grpc.StatusCode.UNAUTHENTICATED
    lines = wait_for_log(running, len(PATHS) * (len(HTTP_METHODS) * 2 + 1), since)
    assert {(line["client"], line["server"], line["attempts"]) for line in lines} == {(None, None, 0)}
    assert recording.requests() == []


def test_an_invalid_token_is_refused(recording, token, directory):
    _, claims, signature = token.split(".")
    keys = json.loads((directory / "dynamic" / "authentication.json").read_text())
    (key,) = json.loads(
        keys["resources"][0]["typed_config"]["providers"]["clients"]["local_jwks"]["inline_string"]
    )["keys"]
    secret = base64.urlsafe_b64decode(key["k"] + "=")
    good = {"iss": "tfserving", "sub": "load"}
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    assert send_rest(recording.gateway, "GET", STATUS, bearer(sign(good, secret, kid="load.1")))[0] == 200
    for bad in (
        "",
        "x",
        f"{unsigned}.{claims}.",
        f"{unsigned}.{claims}.{signature}",
        sign(good, b"another key", kid="load.1"),
        sign(good, secret, kid="load.2"),
        sign(good, secret, kid="load.1", alg="HS512"),
        sign({"iss": "another", "sub": "load"}, secret, kid="load.1"),
        sign({**good, "exp": int(time.time()) - 3600}, secret, kid="load.1"),
        sign({**good, "nbf": int(time.time()) + 3600}, secret, kid="load.1"),
    ):
        assert send_rest(recording.gateway, "GET", STATUS, bearer(bad))[0] in (401, 403), bad
        with pytest.raises(PermissionDeniedError), rpc(recording.gateway, bad) as client:
            client.infer([1.0])
    # Only in the header: paths are logged.
    assert send_rest(recording.gateway, "GET", f"{STATUS}?access_token={token}")[0] == 401
    recording.requests()


def test_a_revoked_token_stops_working_and_a_new_one_works(start):
    running, old = start()
    new = add_token(running.dynamic, "client")[1]
    with rpc(running, old) as one, rpc(running, new) as other:
        wait_until(lambda: works(other), 2)
        assert works(one)
        revoke_tokens(running.dynamic, "client.1")
        wait_until_refused(one)
        assert works(other)
        # The last token: Envoy rejects an empty set of keys.
        revoke_tokens(running.dynamic, "client")
        wait_until_refused(other)
    assert running.log == ""


def wait_until_refused(client):
    """Call until the client is refused; no call that starts more than 2 s after the revocation may work."""
    revoked = started = time.monotonic()
    while works(client):
        assert started - revoked <= 2
        started = time.monotonic()


def works(client, refusal=PermissionDeniedError):
    """Whether a call works; if not, it must fail with this kind of error."""
    try:
        client.infer([1.0])
    except refusal:
        return False
    return True


def wait_until(condition, seconds):
    """Poll the condition; it must be true within this time, with a margin for a busy machine."""
    deadline = time.monotonic() + seconds + 8
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_client_certificates_are_the_other_choice(start, tmp_path):
    ranker = certificate("ranker")
    own = write_identity(tmp_path, "client", ranker)
    other = write_identity(tmp_path, "other", certificate("other"))
    trust_clients(tmp_path, ranker[0])
    running, _ = start("client_certificates")
    since = mark_log(running)
    for connect_client in (rpc, rest):
        with connect_client(running, None, identity=own) as client:
            assert client.infer([1.0])["y"].tolist() == [1.5]
        with pytest.raises(PermissionDeniedError), connect_client(running, None) as client:
            client.infer([1.0])
    assert {line["client"] for line in wait_for_log(running, 6, since)} == {"CN=ranker", None}
    for connect_client in (rpc, rest):
        with (
            pytest.raises(TfServingError),
            connect_client(running, None, identity=other, timeout=5) as client,
        ):
            client.infer([1.0])
    for path in PATHS:
        assert send_all_methods(running, path) == {403}
        assert call_grpc(running, path)[0] == grpc.StatusCode.PERMISSION_DENIED
    # The alert ClientsDenied uses this name.
    url = f"http://127.0.0.1:{running.metrics_port}/stats/prometheus"
    with urllib.request.urlopen(url, timeout=60) as response:
        metrics = response.read().decode()
    (denied,) = re.findall(
        r'^envoy_http_rbac_denied\{envoy_http_conn_manager_prefix="gateway"\} (\d+)$', metrics, re.M
    )
    assert int(denied) >= len(PATHS)
    assert running.log == ""


def test_a_certificate_of_another_authority_is_refused_before_any_request(start, tmp_path):
    """The name of the certificate is that of a client."""
    identity = write_identity(tmp_path, "foreign", certificate("ranker"))
    trust_clients(tmp_path, certificate("ranker")[0])
    running, _ = start("client_certificates")
    for path in PATHS:
        for method in HTTP_METHODS:
            request = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"
            with connect(running, "http/1.1", identity) as connection:
                assert exchange_http1(connection, request.encode()) == b""
        assert send_http2(running, HTTP_METHODS, path, *GRPC_HEADERS, identity=identity) == set()
        assert call_grpc(running, path, identity=identity)[0] == grpc.StatusCode.UNAVAILABLE
    stats = running.stats()
    (refused,) = (
        stats[name] for name in stats if re.fullmatch(r"listener\..*\.ssl\.fail_verify_error", name)
    )
    assert refused == len(PATHS) * (len(HTTP_METHODS) + 2)
    assert stats["http.gateway.downstream_rq_total"] == 0


def exchange_http1(connection, request):
    """The first bytes of the response; none if the connection is closed without one."""
    try:
        connection.sendall(request)
        return connection.recv(65536)
    except (ConnectionError, ssl.SSLError):
        return b""


def test_a_revoked_certificate_loses_its_connections_and_calls_in_flight_finish(tmp_path):
    old, new = certificate("old"), certificate("new")
    prepare(tmp_path, "client_certificates")
    ca = trust_clients(tmp_path, old[0])
    identity = write_identity(tmp_path, "client", old)
    blocked, arrived, released = (threading.Event() for _ in range(3))

    def block(method):
        if method == "Predict" and blocked.is_set():
            blocked.clear()
            arrived.set()
            assert released.wait(60)

    service = FakeService({"digits": {1: half(1)}}, before=block)
    with FakeRpcServer(service) as server, FakeRestServer(service) as rest_server, ExitStack() as stack:
        groups = {name: [Backend(server.port, rest_server.port)] for name in ("stable", "canary")}
        changes = {"max_connection_duration": "2s", "drain_timeout": "1s"}
        running = stack.enter_context(gateway(tmp_path, free_ports(), groups, changes=changes))
        stack.callback(released.set)
        client = stack.enter_context(rpc(running, None, identity=identity, retry=Retry(attempts=1)))
        other = stack.enter_context(rest(running, None, identity=identity, retry=Retry(attempts=1)))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        assert works(client, TfServingError)
        assert works(other, TfServingError)
        blocked.set()
        call = pool.submit(client.infer, [1.0])
        assert arrived.wait(60)
        replace(ca, new[0])
        wait_until(lambda: not works(client, TfServingError), 5)
        wait_until(lambda: not works(other, TfServingError), 5)
        assert not call.done()
        released.set()
        assert call.result(60)["y"].tolist() == [1.5]


def test_a_certificate_without_a_subject_has_a_name_and_a_limit(start, tmp_path):
    issuer = certificate("authority")
    named, unnamed = (certificate(name, subject=False, issuer=issuer) for name in ("dns.example", None))
    trust_clients(tmp_path, issuer[0])
    running, _ = start("client_certificates", rate=3)
    since = mark_log(running)
    for number, identity in enumerate((named, unnamed)):
        context = trust(running, "http/1.1", write_identity(tmp_path, str(number), identity))
        connection = http.client.HTTPSConnection("localhost", running.port, timeout=60, context=context)
        statuses = []
        with closing(connection):
            for _ in range(5):
                connection.request("GET", STATUS, headers={"x-client-id": f"forged-{uuid.uuid4()}"})
                with connection.getresponse() as response:
                    response.read()
                    statuses.append(response.status)
        assert statuses == [200, 200, 200, 429, 429]
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(unnamed[0])).hexdigest()
    lines = wait_for_log(running, 10, since)
    assert [line["client"] for line in lines] == ["dns.example"] * 5 + [fingerprint] * 5


def test_a_caller_without_a_certificate_cannot_set_its_name(start, tmp_path):
    trust_clients(tmp_path, certificate("ranker")[0])
    running, _ = start("client_certificates")
    since = mark_log(running)
    assert send_rest(running, "GET", STATUS, {"x-client-id": "CN=ranker"})[0] == 403
    assert [line["client"] for line in wait_for_log(running, 1, since)] == [None]


def test_a_renewed_certificate_is_used_without_a_restart(start, tmp_path, eventually):
    running, _ = start()
    chain, key = certificate()
    (tmp_path / "tls" / ".new").write_text(key)
    (tmp_path / "tls" / ".new").rename(tmp_path / "tls" / "tls.key")
    replace(tmp_path / "tls" / "tls.crt", chain)

    def serves_new_certificate():
        return ssl.get_server_certificate(("127.0.0.1", running.port)).strip() == chain.strip()

    eventually(serves_new_certificate)


# Limits


def test_a_limited_client_does_not_take_the_share_of_another(start):
    running, one = start(rate=20)
    other = add_token(running.dynamic, "other")[1]
    with rpc(running, one, retry=Retry(attempts=1)) as greedy:
        wait_until(lambda: can_call(running, other), 2)
        outcomes = [works(greedy, ExhaustedError) for _ in range(100)]
        # The signature was the first request.
        assert outcomes == [True] * 19 + [False] * 81
        with pytest.raises(ExhaustedError, match="local_rate_limited"):
            greedy.infer([1.0])
        assert send_rest(running, "POST", PREDICT, bearer(one), BODY)[0] == 429
        # `other` has used 1 of its 20 requests.
        with rpc(running, other, retry=Retry(attempts=1)) as modest:
            assert [works(modest, ExhaustedError) for _ in range(20)] == [True] * 18 + [False] * 2


def test_a_limited_client_does_not_slow_another(start):
    running, one = start(rate=300)
    other = add_token(running.dynamic, "other")[1]
    with (
        rpc(running, one, retry=Retry(attempts=1)) as greedy,
        rpc(running, other, retry=Retry(attempts=1)) as modest,
        ThreadPoolExecutor(1) as pool,
    ):
        wait_until(lambda: can_call(running, other), 2)
        alone = [measure_call(modest) for _ in range(100)]
        while works(greedy, ExhaustedError):
            pass
        done = threading.Event()
        refused = pool.submit(count_refused, greedy, done)
        beside = [measure_call(modest) for _ in range(100)]
        done.set()
        assert refused.result() > 50
    # The two also share a processor and this process.
    assert statistics.median(beside) < 5 * statistics.median(alone)


def measure_call(client):
    start = time.perf_counter()
    client.infer([1.0])
    return time.perf_counter() - start


def count_refused(client, done):
    """Call until `done` is set; every call must be refused."""
    count = 0
    while not done.is_set():
        assert not works(client, ExhaustedError)
        count += 1
    return count


def can_call(running, token):
    return send_rest(running, "GET", STATUS, bearer(token))[0] == 200


def test_an_oversized_request_does_not_reach_a_server(recording, token):
    body = bytes(64 * 1024 * 1024 + 1)
    code, message = call_grpc(recording.gateway, services.PREDICT.path, token, body)
    assert code != grpc.StatusCode.OK
    assert "request too long" in message
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
    megabyte = bytes(0x100000)
    for encoding, chunk in (
        (f"content-length: {len(body)}", megabyte),
        ("transfer-encoding: chunked", b"100000\r\n" + megabyte + b"\r\n"),
    ):
        with connect(recording.gateway, "http/1.1") as connection:
            connection.sendall(f"{head}{encoding}\r\n\r\n".encode())
            send_until_refused(connection, chunk, 66)
    assert recording.requests() == []


def send_until_refused(connection, chunk, count):
    """Send the chunk up to `count` times; assert that the response is 413."""
    try:
        for _ in range(count):
            connection.sendall(chunk)
        answer = connection.recv(65536)
    except (ConnectionError, ssl.SSLError):
        return  # closed while sending
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../monitoring/prometheus/metrics",
        "/v1/models/../../monitoring/prometheus/metrics",
        "/v1/models/%2e%2e/%2e%2e/monitoring/prometheus/metrics",
        "/v1/models/..%2f..%2fmonitoring",
        "/v1/models/..%5c..%5cmonitoring",
        "/v1/models/..\\..\\monitoring",
        "//monitoring/prometheus/metrics",
        "/v1/models",
        "/v1/",
        "/V1/models/digits",
        "/v1;/models/digits",
        "/tensorflow.serving.PredictionService/",
        "/tensorflow.serving.PredictionService/../ModelService/HandleReloadConfigRequest",
        "/tensorflow.serving.ModelService/GetModelStatus/",
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
        "http://localhost:9901/config_dump",
        "*",
    ],
)
def test_tricks_with_paths_do_not_reach_a_server(recording, token, path):
    for method in ("GET", "POST"):
        status, _ = send_rest(recording.gateway, method, path, bearer(token))
        assert status in (400, 403, 404), method
    send_http2(recording.gateway, ["GET", "POST"], path, authorization(token))
    assert recording.requests() == []


@pytest.mark.parametrize(
    "method", ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"]
)
def test_only_get_and_post_reach_a_server(recording, token, method):
    before = count_forwarded(recording.gateway)
    send_rest(recording.gateway, method, PREDICT, bearer(token))
    send_http2(recording.gateway, [method], PREDICT, authorization(token))
    assert count_forwarded(recording.gateway) == before
    assert recording.requests() == []


def test_grpc_reaches_a_server_only_with_post(recording, token):
    """A gRPC server responds UNAVAILABLE to some methods, which the gateway would retry."""
    before = count_forwarded(recording.gateway)
    methods = [method for method in HTTP_METHODS if method != "POST"]
    for path in (services.PREDICT.path, services.GET_MODEL_STATUS.path):
        send_http2(recording.gateway, methods, path, *GRPC_HEADERS, authorization(token))
    assert count_forwarded(recording.gateway) == before


def count_forwarded(running):
    """How many requests and retries the gateway has sent to servers, without health checks."""
    stats = running.stats()
    return sum(
        stats[f"cluster.{group}-{kind}.upstream_rq_total"]
        for group in ("stable", "canary")
        for kind in ("grpc", "rest")
    )


@pytest.mark.parametrize(
    "path",
    [
        services.RELOAD_CONFIG.path,
        "/tensorflow.serving.SessionService/SessionRun",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/tensorflow.ProfilerService/Profile",
    ],
)
def test_other_services_are_closed(recording, token, path):
    code, _ = call_grpc(recording.gateway, path, token)
    assert code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)
    assert recording.requests() == []


def malformed_http1(token):
    """Requests that break the rules of HTTP/1.1, to a path that exists and with a valid token."""
    good = f"GET {STATUS} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n".encode()
    post = good.replace(b"GET", b"POST")
    return {
        "no version": f"GET {STATUS}\r\nauthorization: Bearer {token}\r\n\r\n".encode(),
        "old version": good.replace(b"1.1", b"1.0") + b"\r\n",
        "unknown version": good.replace(b"1.1", b"9.9") + b"\r\n",
        "no host": good.replace(b"host: localhost\r\n", b"") + b"\r\n",
        "space in the path": good.replace(b"digits", b"di gits") + b"\r\n",
        "control character in the path": good.replace(b"digits", b"di\x01gits") + b"\r\n",
        "NUL in a header": good + b"a: b\0c\r\n\r\n",
        "space before the colon": good + b"a : b\r\n\r\n",
        "header without a colon": good + b"ab\r\n\r\n",
        "underscore in a header": good + b"x_client_id: forged\r\n\r\n",
        "header of 100 kB": good + b"a: " + b"b" * 100_000 + b"\r\n\r\n",
        "200 headers": good + b"".join(b"a%d: b\r\n" % number for number in range(200)) + b"\r\n",
        "two lengths": post + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "negative length": post + b"content-length: -1\r\n\r\n",
        "length and chunks": post + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "unknown transfer encoding": post + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "invalid chunk": post + b"transfer-encoding: chunked\r\n\r\nxyz\r\n\r\n",
        "HTTP/2 on HTTP/1.1": raw_http2.PREFACE,
        "TLS record": bytes.fromhex("1603010200010001fc0303"),
        "upgrade": good + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
    }


@pytest.mark.parametrize("case", malformed_http1(""))
def test_malformed_http1_does_not_reach_a_server(recording, token, case):
    with connect(recording.gateway, "http/1.1") as connection:
        connection.sendall(malformed_http1(token)[case])
        connection.settimeout(1 if case in ("TLS record", "invalid chunk") else 20)
        try:
            answer = connection.recv(65536)
        except (TimeoutError, ConnectionError):
            answer = b""
        assert b" 200 " not in answer.partition(b"\r\n")[0]
    assert recording.requests() == []


def http2_headers(token, **changes):
    """Fields of a valid request; a change to None removes the field."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":authority": "localhost",
        ":path": services.GET_MODEL_STATUS.path,
        "content-type": "application/grpc",
        "te": "trailers",
        "authorization": f"Bearer {token}",
        **{name.replace("__", ":"): value for name, value in changes.items()},
    }
    return [(name.encode(), value.encode("latin-1")) for name, value in fields.items() if value is not None]


def malformed_http2(token):
    """Frames that break the rules of HTTP/2."""
    flags = raw_http2.END_STREAM | raw_http2.END_HEADERS

    def request(fields, stream=1, flags=flags):
        return raw_http2.frame(raw_http2.HEADERS, flags, stream, raw_http2.encode_headers(fields))

    good = http2_headers(token)
    return {
        "no path": request(http2_headers(token, __path=None)),
        "empty path": request(http2_headers(token, __path="")),
        "no method": request(http2_headers(token, __method=None)),
        "no scheme": request(http2_headers(token, __scheme=None)),
        "two paths": request([*good, (b":path", b"/")]),
        "pseudo header after a header": request([*good[1:], good[0]]),
        "unknown pseudo header": request([(b":admin", b"1"), *good]),
        "upper case": request([*good, (b"A", b"b")]),
        "connection header": request([*good, (b"connection", b"close")]),
        "transfer encoding": request([*good, (b"transfer-encoding", b"chunked")]),
        "line break in a value": request([*good, (b"a", b"b\r\nc: d")]),
        "underscore": request([*good, (b"x_client_id", b"forged")]),
        "200 headers": request([*good, *((b"a%d" % number, b"b") for number in range(200))]),
        "invalid HPACK": raw_http2.frame(raw_http2.HEADERS, flags, 1, b"\xff" * 40),
        "even stream": request(good, stream=2),
        "stream 0": request(good, stream=0),
        "data before headers": raw_http2.frame(raw_http2.DATA, 1, 1, b"abc"),
        "frame of 1 MB": raw_http2.frame(raw_http2.HEADERS, flags, 1, bytes(1_000_000)),
        "length does not match": request([*good, (b"content-length", b"5")]),
    }


@pytest.mark.parametrize("case", malformed_http2(""))
def test_malformed_http2_does_not_reach_a_server(recording, token, case):
    with connect(recording.gateway, "h2") as connection:
        raw_http2.exchange(connection, malformed_http2(token)[case])
    assert recording.requests() == []


def test_well_formed_http2_reaches_a_server(recording, token):
    """The frames above are refused because of what is wrong with them."""
    flags = raw_http2.END_HEADERS
    block = raw_http2.encode_headers(http2_headers(token))
    frames = raw_http2.frame(raw_http2.HEADERS, flags, 1, block)
    frames += raw_http2.frame(raw_http2.DATA, raw_http2.END_STREAM, 1, bytes(5))
    with connect(recording.gateway, "h2") as connection:
        assert raw_http2.HEADERS in raw_http2.exchange(connection, frames)
    assert recording.requests() == ["GetModelStatus"]


def test_fuzzed_requests_reach_a_server_only_on_allowed_routes(recording, token):
    seed = int(os.environ.get("TFSERVING_FUZZ_SEED") or random.randrange(2**32))
    rng = random.Random(seed)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
    http1 = f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY
    block = raw_http2.encode_headers(http2_headers(token, __path=services.PREDICT.path))
    http2 = raw_http2.frame(raw_http2.HEADERS, raw_http2.END_HEADERS | raw_http2.END_STREAM, 1, block)
    for _ in range(100):
        with connect(recording.gateway, "http/1.1") as connection:
            connection.settimeout(0.03)
            with suppress(OSError):
                connection.sendall(mutate(http1, rng))
                connection.recv(65536)
        with connect(recording.gateway, "h2") as connection:
            connection.settimeout(0.03)
            raw_http2.exchange(connection, mutate(http2, rng))
    assert recording.gateway.process.poll() is None
    with rpc(recording.gateway, token) as client:
        assert client.infer([1.0])["y"].tolist() == [1.5]
    rpc_methods = {"Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata", "GetModelStatus"}
    others = [name for name in recording.requests() if name not in rpc_methods]
    assert [name for name in others if not name.startswith("/v1/models/")] == [], f"seed {seed}"


def mutate(data, rng):
    """Change, remove or insert a few bytes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed))
        action = rng.randrange(3)
        if action == 0:
            changed[place] = rng.randrange(256)
        elif action == 1:
            del changed[place : place + rng.randint(1, 8)]
        else:
            changed[place:place] = rng.randbytes(rng.randint(1, 8))
    return bytes(changed)


# Operation


def test_the_metrics_port_exposes_nothing_else_of_the_administration_interface(running):
    def get(path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", running.metrics_port, timeout=60)
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body

    status, metrics = get("/stats/prometheus?usedonly")
    assert status == 200
    assert b"envoy_cluster_membership_healthy" in metrics
    assert get("/ready") == (200, b"LIVE\n")
    for path in (
        "/",
        "/config_dump",
        "/stats",
        "/clusters",
        "/certs",
        "/logging",
        "/stats/prometheus/../../config_dump",
    ):
        assert get(path)[0] == 404, path
    assert get("/stats/prometheus%2f..%2f..%2fconfig_dump")[0] == 400
    for path in ("/quitquitquit", "/healthcheck/fail", "/stats/prometheus", "/drain_listeners"):
        assert get(path, "POST")[0] == 404, path


def test_the_metrics_port_responds_when_clients_use_up_the_connections(directory, groups):
    limit = {"max_active_downstream_connections": "2"}
    with ExitStack() as stack:
        running = stack.enter_context(gateway(directory, free_ports(), groups, changes=limit))
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=20))
            for _ in range(3)
        ]
        with suppress(ConnectionError):
            assert clients[-1].recv(1) == b""
        connection = http.client.HTTPConnection("127.0.0.1", running.metrics_port, timeout=20)
        with closing(connection):
            connection.request("GET", "/ready")
            assert connection.getresponse().status == 200


def test_only_the_administration_interface_listens_on_loopback_and_nothing_else_does():
    text = (SOURCE / "envoy.yaml").read_text()
    found = re.findall(r"address: (\S+), port_value: (\d+)", text)
    assert set(found) == {
        ("127.0.0.1", "9901"),
        ("0.0.0.0", "8443"),
        ("0.0.0.0", "9902"),
        *((group, port) for group in ("stable", "canary") for port in ("8500", "8501")),
    }


def test_a_server_whose_model_is_not_available_gets_no_calls(start, groups, eventually):
    """The REST status is 200 in every state."""
    service = FakeService({"digits": {2: half(2)}})
    with FakeRpcServer(service) as server, FakeRestServer(service) as rest_server:
        other = Backend(server.port, rest_server.port)
        running, token = start(groups={**groups, "stable": [groups["stable"][0], other]})
        healthy = "cluster.stable-grpc.membership_healthy"
        service.models["digits"][2].state = 50
        eventually(lambda: running.stats()[healthy] == 1)
        with rpc(running, token) as client:
            # The worker threads of Envoy notice it a little later.
            eventually(lambda: all(map(can_predict, [client] * 50)))
            assert [can_predict(client) for _ in range(50)] == [True] * 50
        service.models["digits"][2].state = 30
        eventually(lambda: running.stats()[healthy] == 2)


def can_predict(client):
    try:
        return client.infer([1.0])["y"].tolist() == [1.5]
    except NotFoundError:
        return False


def test_deadlines_that_pass_do_not_eject_servers(start, groups, servers):
    service = FakeService(
        {"digits": {1: half(1)}}, before=lambda name: name == "Predict" and time.sleep(0.05)
    )
    with FakeRpcServer(service) as server, FakeRestServer(service) as rest_server:
        backends = [Backend(server.port, rest_server.port)] * 2
        running, token = start(groups={"stable": backends, "canary": backends})
        with rpc(running, token) as client:
            client.infer([1.0])
            for _ in range(30):
                with pytest.raises(DeadlineError):
                    client.infer([1.0], timeout=0.01)
        stats = running.stats()
        ejections = [
            name for name in stats if "ejections_active" in name or "ejections_enforced_total" in name
        ]
        assert len(ejections) == 8
        assert [name for name in ejections if stats[name]] == []


# Load


def test_weights_change_without_failed_calls(start):
    running, token = start()
    with load([running], token) as calls:
        calls.wait_for(100)
        for canary in (5, 50, 20, 0, 100, 95, 1, 10, 90, 30):
            set_weights(running, canary)
            calls.restart()
            calls.wait_for(count_for_share(canary))
            assert abs(calls.share_of(2) - canary) <= 3, canary
        calls.wait_for(10_000 - calls.calls)
        assert abs(calls.share_of(2) - canary) <= 3
    assert calls.failures == []
    assert running.stats()["http.gateway.rds.models.config_reload"] == 11


def count_for_share(percent):
    """The number of calls after which 3 points are 4.5 standard deviations of the share."""
    share = percent / 100
    return max(500, round(share * (1 - share) * (4.5 / 0.03) ** 2))


def set_weights(running, canary):
    """Set the weights and wait until Envoy uses them."""
    name = "http.gateway.rds.models.config_reload"
    reloads = running.stats()[name]
    write_weights(running.dynamic, {"stable": 100 - canary, "canary": canary})
    wait_until(lambda: running.stats()[name] == reloads + 1, 2)


def test_a_killed_server_fails_no_calls(start, groups):
    with ExitStack() as stack:
        ((process, ports),) = start_backends(stack, 1)
        running, token = start(groups={**groups, "stable": [groups["stable"][0], ports]})
        with load([running], token) as calls:
            calls.wait_for(500)
            process.kill()
            calls.wait_for(1500)
    assert calls.failures == []
    assert calls.versions.keys() == {1}


def test_a_killed_gateway_fails_no_calls(start, groups):
    running, token = start()
    with gateway(running.directory, free_ports(), groups) as other:
        with load([running, other], token) as calls:
            calls.wait_for(500)
            running.process.kill()
            calls.wait_for(1500)
    assert calls.failures == []
