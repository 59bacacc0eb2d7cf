import gc
import gzip
import http.client
import json
import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import numpy as np
import pytest

from tests.server.fake_service import FakeService, serve, zeros
from tfserving.errors import (
    DeadlineError,
    ExhaustedError,
    FailedPreconditionError,
    NotFoundError,
    TfServingError,
    UnavailableError,
    UnsupportedError,
)
from tfserving.server.server_options import LimitOptions, RestOptions
from tfserving.wire import messages
from tfserving.wire.model_spec import ModelSpec

STATUS = {
    "model_version_status": [
        {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def server(service):
    with serve(service) as running:
        yield running


def test_predict_responds_in_the_format_of_the_request(server, service):
    row = server.predict({"instances": [1.5, 2]})
    assert (row.status, row.json) == (200, {"predictions": [3.0, 4.0]})
    column = server.send("POST", "/v1/models/m/versions/7:predict", {"inputs": [1.5], "signature_name": "s"})
    assert (column.status, column.json) == (200, {"outputs": [3.0]})
    server.send("POST", "/v1/models/m/labels/stable:predict", {"inputs": [1.5]})
    assert service.specs == [ModelSpec("m"), ModelSpec("m", 7, signature="s"), ModelSpec("m", label="stable")]


def test_classify_and_regress_return_a_result_for_each_example(server, service):
    def run(inputs):
        values = [
            [messages.Example.FromString(data).features.feature["x"].float_list.value[0]]
            for data in inputs["inputs"]
        ]
        scores = np.array(values, np.float32)
        return {"scores": scores, "classes": scores.astype(int).astype("S").astype(object), "outputs": scores}

    service.run = run
    request = {"signature_name": "from_examples", "examples": [{"x": 0.1}, {"x": 5.0}]}
    classified = server.send("POST", "/v1/models/m:classify", request)
    assert (classified.status, classified.json) == (200, {"results": [[["0", 0.1]], [["5", 5.0]]]})
    regressed = server.send("POST", "/v1/models/m/versions/7:regress", request)
    assert (regressed.status, regressed.json) == (200, {"results": [0.1, 5.0]})
    assert service.specs == [ModelSpec("m", version, signature="from_examples") for version in (None, 7)]
    failed = server.send("POST", "/v1/models/m:regress", {"examples": [{"x": 1.0}]})
    assert failed.status == 400
    assert "regress" in failed.error


def test_returns_status_and_metadata(server, service):
    assert server.send("GET", "/v1/models/m").json == STATUS
    assert server.send("GET", "/v1/models/m/labels/a").json == STATUS
    metadata = server.send("GET", "/v1/models/m/versions/7/metadata")
    assert metadata.json == {
        "model_spec": {"name": "m", "version": "7", "signature_name": ""},
        "metadata": {"signature_def": {"signature_def": {}}},
    }
    assert service.specs == [ModelSpec("m"), ModelSpec("m", label="a"), ModelSpec("m", 7)]


def test_the_server_header_names_the_toolkit(server):
    for response in (server.send("GET", "/v1/models/m"), server.predict({}), server.send("BREW", "/")):
        assert response.headers["Server"] == "tfserving"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/", None, 404, "path / does not exist"),
        ("GET", "/v1/models", None, 400, "path /v1/models has no model name"),
        ("PUT", "/v1/models/m", {}, 400, "malformed request PUT /v1/models/m"),
        ("OPTIONS", "/v1/models/m:predict", None, 400, "malformed request OPTIONS"),
        ("BREW", "/v1/models/m", None, 400, "not valid HTTP/1.1: Invalid method"),
        ("POST", "/v1/models/m:predict?x=1", {"instances": [1]}, 400, "omit the query string"),
        ("GET", "/v1/models/m?x=1", None, 404, "Servable not found for request: Latest(m?x=1)"),
        ("GET", "/v1/models/other", None, 404, "Servable not found for request: Latest(other)"),
        ("GET", "/v1/models/other/metadata", None, 404, "Servable not found for request: Latest(other)"),
        ("GET", "/v1/models/a%2F..%2Fb", None, 404, "Latest(a/../b)"),
        ("GET", "/v1/models/..%2F..%2Fetc%00", None, 404, "Latest(../../etc\0)"),
        ("GET", "/v1/models/%ff%fe", None, 404, "Latest(\ufffd\ufffd)"),
        (
            "POST",
            "/v1/models/other:predict",
            {"instances": [1]},
            404,
            "Servable not found for request: Latest(other)",
        ),
        ("POST", "/v1/models/m:predict", None, 400, "the body is empty"),
        ("POST", "/v1/models/m:predict", b"{oops", 400, "the body is not JSON"),
        ("POST", "/v1/models/m:predict", b"\x00\xff" * 1000, 400, "the body is not JSON"),
        ("POST", "/v1/models/m:predict", {"instances": ["a"]}, 400, 'instances[0] is "a"'),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_errors_are_json(server, method, path, body, status, text):
    response = server.send(method, path, body)
    assert response.status == status
    assert text in response.error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError("why"), 404),
        (FailedPreconditionError("why"), 400),
        (DeadlineError("why"), 504),
        (ExhaustedError("why"), 429),
        (UnsupportedError("why"), 501),
        (UnavailableError("why"), 503),
        (TfServingError("why", code="CANCELLED"), 499),
        (TfServingError("why", code="INTERNAL"), 500),
        (TfServingError("why"), 500),
    ],
)
def test_an_error_code_becomes_an_http_status(service, server, error, status):
    def fail(inputs):
        raise error

    service.run = fail
    response = server.predict({"instances": [1]})
    assert (response.status, response.error) == (status, "why")


def test_an_unexpected_error_is_returned_and_logged(service, server, caplog):
    def fail(inputs):
        raise ZeroDivisionError("by zero")

    service.run = fail
    response = server.predict({"instances": [1]})
    assert (response.status, response.error) == (500, "ZeroDivisionError: by zero")
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]
    assert server.send("GET", "/v1/models/m").status == 200


def test_rejects_an_output_that_json_cannot_represent(service, server):
    service.run = lambda inputs: {"y": np.zeros(1, np.complex64)}
    response = server.predict({"instances": [1]})
    assert response.status == 400
    assert "'y' is complex64" in response.error


@pytest.mark.parametrize(
    ("version", "connection", "sent", "closes"),
    [
        ("1.1", "", None, False),
        ("1.1", "Connection: close\r\n", "close", True),
        ("1.0", "", "close", True),
        ("1.0", "Connection: keep-alive\r\n", "keep-alive", False),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models/m", "/v1/models/nobody"])
def test_the_head_of_a_response(server, version, connection, sent, closes, path):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(f"GET {path} HTTP/{version}\r\nHost: x\r\n{connection}\r\n".encode())
        response = http.client.HTTPResponse(client)
        response.begin()
        body = response.read()
        if closes:
            assert client.recv(1) == b""
    assert f"{response.version / 10}" == version
    assert (response.status, response.reason) == ((404, "Not Found") if "nobody" in path else (200, "OK"))
    headers = {name.lower(): value for name, value in response.getheaders()}
    date = headers.pop("date")
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 60
    expected = {"content-type": "application/json", "content-length": str(len(body)), "server": "tfserving"}
    assert headers == expected | ({"connection": sent} if sent else {})


def test_rejects_head_requests(server, service):
    response = server.send("HEAD", "/v1/models/m")
    assert (response.status, response.body) == (400, b"")
    assert server.send("HEAD", "/").status == 404
    assert service.specs == []


def test_responds_to_preflight_requests_with_an_empty_body(server):
    for origin in ("http://example.com", "https://example.com:8443"):
        response = server.send("OPTIONS", "/v1/models/m:predict", headers={"Origin": origin})
        assert (response.status, response.body) == (200, b"")
    assert server.send("OPTIONS", "/v1/anything", headers={"Origin": "http://x"}).status == 200
    assert server.send("OPTIONS", "/models/m", headers={"Origin": "http://x"}).status == 404
    assert server.send("OPTIONS", "/v1/models/m", headers={"Origin": "null"}).status == 400


def test_bodies_may_be_large_and_chunked(server):
    values = [float(value) for value in range(300_000)]
    body = json.dumps({"instances": values}).encode()
    assert len(body) > 2**21
    doubled = [2 * value for value in values]
    assert server.predict(body).json["predictions"] == doubled
    chunks = [body[start : start + 100_000] for start in range(0, len(body), 100_000)]
    response = server.send("POST", "/v1/models/m:predict", chunks, {"Transfer-Encoding": "chunked"})
    assert response.json["predictions"] == doubled


def test_ignores_bytes_after_the_json_value(server):
    for instances in ([1.5], [1.5] * 10_000):
        body = json.dumps({"instances": instances}).encode() + b"\0 }"
        assert server.predict(body).json == {"predictions": [3.0] * len(instances)}
    examples = server.send("POST", "/v1/models/m:classify", b'{"examples": []}\0')
    assert "no 'examples'" in examples.error


def test_reads_a_compressed_body(server):
    body = gzip.compress(b'{"instances": [1.5]}')
    assert server.predict(body, {"Content-Encoding": "gzip"}).json == {"predictions": [3.0]}
    garbled = server.predict(b"abc", {"Content-Encoding": "gzip"})
    assert garbled.status == 400
    assert "is not gzip" in garbled.error
    assert server.predict(b'{"instances": [1.5]}', {"Content-Encoding": "br"}).json == {"predictions": [3.0]}
    assert "not JSON" in server.predict(body, {"Content-Encoding": "br"}).error


def test_rejects_a_body_that_is_too_large(service):
    body = b'{"instances": [1.5]}' + b" " * 1000
    with serve(service, limits=LimitOptions(max_body_bytes=1000)) as server:
        for sent, headers in (
            (gzip.compress(bytes(10_000_000)), {"Content-Encoding": "gzip"}),
            (body, {}),
            ([body[:500], body[500:]], {"Transfer-Encoding": "chunked"}),
        ):
            answer = server.predict(sent, headers)
            assert answer.status == 400
            assert "more than 1000 bytes (--rest_api_max_body_bytes)" in answer.error
        assert server.predict(body[:1000]).json == {"predictions": [3.0]}


def test_rejects_a_body_with_too_many_values(service):
    values = json.dumps({"instances": [[], *[1.5] * 1000]}).encode()
    numbers = json.dumps({"instances": [1.5] * 2000}).encode()
    with serve(service, limits=LimitOptions(max_json_values=1000)) as server:
        for method in ("predict", "classify"):
            answer = server.send("POST", f"/v1/models/m:{method}", values)
            assert answer.status == 400
            assert "more than 1000 values (--rest_api_max_json_values)" in answer.error
        assert len(server.predict(numbers).json["predictions"]) == 2000


@pytest.fixture
def traced_bytes():
    """A function that returns how many bytes Python and numpy have allocated; cycles are not collected."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    gc.enable()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"[1.5", {}),
        (b'{"instances": [[1.5], 2]}', {}),
        (b'{"instances": ["a"]}', {}),
        (b"no gzip", {"Content-Encoding": "gzip"}),
    ],
    ids=["not JSON", "not rectangular", "not a number", "not gzip"],
)
def test_nothing_of_a_failed_request_stays_in_memory(server, body, headers, traced_bytes, eventually):
    large = body.ljust(5_000_000, b" ")
    assert server.predict(large, headers).status == 400
    before = traced_bytes()
    for _ in range(5):
        assert server.predict(large, headers).status == 400
    eventually(lambda: traced_bytes() - before < 1e6)


def test_nothing_of_an_unfinished_body_stays_in_memory(server, traced_bytes, eventually):
    before = traced_bytes()
    head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + bytes(5_000_000))
    eventually(lambda: traced_bytes() - before < 1e6)


def test_many_large_bodies_are_parsed_in_turn(server):
    large = json.dumps({"instances": [1.5] * 400_000}).encode()
    compressed = gzip.compress(large)
    calls = [(large, {}), (compressed, {"Content-Encoding": "gzip"})] * 3
    with ThreadPoolExecutor(6) as callers:
        answers = [callers.submit(server.predict, *call) for call in calls]
        assert server.predict({"instances": [1.0]}).json == {"predictions": [2.0]}
        assert all(len(answer.result().json["predictions"]) == 400_000 for answer in answers)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("accepted", "size", "compressed"),
    [
        ("gzip", 10_000, True),
        ("deflate, GZIP;q=0.5", 10_000, True),
        ("*", 10_000, True),
        ("gzip;q=1.0, identity", 10_000, True),
        ("gzip", 10, False),
        ("gzip;q=0", 10_000, False),
        ("gzip; q=0.000, deflate", 10_000, False),
        ("gzip;q= 0", 10_000, False),
        ("*, gzip;q=0", 10_000, False),
        ("*;q=0, gzip", 10_000, True),
        ("deflate, br", 10_000, False),
        ("notgzip", 10_000, False),
        ("", 10_000, False),
    ],
)
def test_compresses_long_responses_for_clients_that_accept_gzip(service, server, accepted, size, compressed):
    service.run = zeros(size)
    response = server.predict({"instances": [1]}, {"Accept-Encoding": accepted})
    assert response.headers["Content-Encoding"] == ("gzip" if compressed else None)
    body = gzip.decompress(response.body) if compressed else response.body
    assert json.loads(body) == {"predictions": [0.0] * size}


def test_cors_headers_are_sent_only_if_enabled(service, server):
    for response in (server.send("GET", "/v1/models/m"), server.send("GET", "/")):
        assert response.headers["Access-Control-Allow-Origin"] is None
    with serve(FakeService(), RestOptions(cors=True)) as open_server:
        preflight = open_server.send("OPTIONS", "/v1/models/m:predict", headers={"Origin": "https://x"})
        assert (preflight.status, preflight.body) == (200, b"")
        assert preflight.headers["Access-Control-Allow-Methods"] == "POST, GET"
        assert preflight.headers["Access-Control-Allow-Headers"] == "Content-Type"
        for response in (preflight, open_server.predict({"instances": [1]}), open_server.send("GET", "/")):
            assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_a_request_times_out(service):
    release = threading.Event()
    service.run = lambda inputs: {"y": np.zeros(release.wait(30))}
    with serve(service, RestOptions(timeout_in_ms=50)) as server:
        try:
            response = server.predict({"instances": [1]})
            assert response.status == 504
            assert "no response within 50 ms (--rest_api_timeout_in_ms)" in response.error
        finally:
            release.set()


def test_a_timeout_of_0_rejects_no_request(service):
    with serve(service, RestOptions(timeout_in_ms=0)) as server:
        assert server.predict({"instances": [1]}).status == 200


def test_a_busy_model_does_not_delay_the_status(service, server):
    running, release = threading.Event(), threading.Event()

    def run(inputs):
        running.set()
        assert release.wait(30)
        return {"y": np.zeros(1)}

    service.run = run
    responses = []
    caller = threading.Thread(target=lambda: responses.append(server.predict({"instances": [1]})))
    caller.start()
    try:
        assert running.wait(30)
        assert server.send("GET", "/v1/models/m").json == STATUS
    finally:
        release.set()
        caller.join()
    assert responses[0].status == 200


def test_a_slow_client_holds_no_worker_thread(service, server):
    body = b'{"instances": [1]}'
    head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
        slow.sendall(head + body[:5])
        assert server.send("GET", "/v1/models/m").status == 200
        assert service.submitted == 0
        slow.sendall(body[5:])
        assert b"200 OK" in slow.recv(4096)
    assert service.submitted == 1


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"A: " + b"x" * 2**16], 200),
        ([b"A: %d" % index for index in range(256)], 200),
        ([b"A: x"] * 1000, 200),
        ([b"A: " + b"x" * 2**16] * 2, 400),
        ([b"A: " + b"x" * 2**17], 400),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_limits_the_size_of_headers(server, lines, status):
    head = b"\r\n".join([b"GET /v1/models/m HTTP/1.1", b"Host: x", b"Connection: close", *lines])
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(head + b"\r\n\r\n")
        response = client.makefile("rb").readline()
    assert int(response.split()[1]) == status


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/models/m HTTP/1.1\r\n\r\n",
        b"GET /v1/models/m HTTP/1.1\nHost: x\n\n",
        b"GET /v1/models/m HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    ],
)
def test_rejects_requests_without_host_and_lines_without_cr(server, head):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(head)
        assert b" 400 " in client.makefile("rb").readline()


def test_sends_100_continue_if_the_client_expects_it(server):
    body = b'{"instances": [1]}'
    head = (
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(head % len(body))
        assert client.recv(4096).startswith(b"HTTP/1.1 100")
        client.sendall(body)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/models/m HTTP/9.9.9\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n0\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=lambda value: repr(value)[:40],
)
def test_garbage_gets_a_400_or_no_response_and_the_server_keeps_serving(server, garbage, caplog):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(garbage)
        client.shutdown(socket.SHUT_WR)
        response = client.recv(1 << 16)
    assert not response or response.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert server.send("GET", "/v1/models/m").status == 200
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nabcdeXX\r\n"])
def test_a_malformed_body_gets_a_response_and_the_connection_is_closed(server, rest, caplog):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"5\r\nabcde\r\n")
        client.sendall(rest)
        response = client.makefile("rb").read()
    assert response.startswith(b"HTTP/1.1 400")
    assert b"the body is incomplete" in response
    assert not any(record.exc_info for record in caplog.records)


def test_a_path_that_is_not_utf8_gets_a_400(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(b"GET /v1/models/\xff\xfe/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        response = client.makefile("rb").read()
    assert b" 400 " in response.splitlines()[0]


def test_keeps_serving_after_a_client_disconnects(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(b'POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"ins')
    assert server.predict({"instances": [1]}).status == 200


def test_a_connection_serves_several_requests(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for body in (b"{oops", b'{"instances": [1]}', b""):
        connection.request("POST", "/v1/models/m:predict", body)
        response = connection.getresponse()
        response.read()
        assert not response.will_close
    connection.close()
