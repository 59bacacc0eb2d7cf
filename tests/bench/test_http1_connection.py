"""HTTP/1.1 of the load generator."""

from __future__ import annotations

import pytest

from tests.bench.loops import count_is, plan_for, run_loop, scripted_server, target_for
from tfserving.bench.http1_connection import prepare

REQUEST = ("/v1/models/half:predict", b'{"inputs": {"x": [1.0, 2.0]}}')
BODY = b'{"outputs": [1]}'
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\n" + BODY[:5] + b"\r\n"
CHUNKED += b"B\r\n" + BODY[5:] + b"\r\n0\r\n\r\n"


def run_against(*pieces: bytes, requests: int = 3):
    with scripted_server(pieces) as port:
        return run_loop(plan_for(port, [REQUEST], is_grpc=False), count_is(requests)).outcomes


def test_prepares_a_post_request_with_headers():
    data = prepare(target_for(8501, prefix="/tf", headers=(("authorization", "Bearer x"),)), "/v1", b"{}")
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /tf/v1 HTTP/1.1",
        b"Host: 127.0.0.1:8501",
        b"Content-Type: application/json",
        b"Content-Length: 2",
        b"authorization: Bearer x",
    ]
    assert body == b"{}"


@pytest.mark.parametrize("response", [LENGTH, CHUNKED])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_reads_responses_in_pieces_of_any_size(response, size):
    outcomes = run_against(*(response[start : start + size] for start in range(0, len(response), size)))
    assert set(outcomes) == {""}


def test_reports_the_status_and_the_message_of_an_error():
    body = b'{"error": "no such model"}'
    outcomes = run_against(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert set(outcomes) == {"HTTP 404: no such model"}


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: Close", b"HTTP/1.0 200 OK"])
def test_reconnects_after_a_response_that_closes_the_connection(head):
    assert set(run_against(head + b"\r\nContent-Length: 2\r\n\r\n{}")) == {""}


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], "the response is not HTTP: b'SSH-2.0-OpenSSH\\r\\n'"),
        ([b"HTTP/1.1 200 OK\r\n\r\n"], "the response has neither Content-Length nor chunks"),
        ([CHUNKED.replace(b"\r\nB\r\n", b"\r\nx\r\n")], "the response has an invalid chunk: b'x'"),
        ([], "the server closed the connection"),
    ],
)
def test_counts_invalid_responses_as_errors(pieces, reason):
    assert set(run_against(*pieces)) == {f"UNAVAILABLE: {reason}"}


def test_counts_responses_of_the_fake_server(rest_server):
    bad = ("/v1/models/other:predict", REQUEST[1])
    plan = plan_for(rest_server.port, [REQUEST, bad], is_grpc=False, connections=2)
    outcomes = run_loop(plan, count_is(20)).outcomes
    assert outcomes.keys() == {"", "HTTP 404: Servable not found for request: other 0"}
    assert abs(outcomes[""] * 2 - outcomes.total()) <= 2
