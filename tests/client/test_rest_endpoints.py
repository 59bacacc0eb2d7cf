import pytest

from tfserving.client.rest_endpoints import Endpoint, RestEndpoints
from tfserving.errors import InvalidInputError


@pytest.mark.parametrize(
    ("address", "tls", "url"),
    [
        ("a", False, "http://a:8501"),
        ("a:1", False, "http://a:1"),
        ("a:1", True, "https://a:1"),
        ("https://a/models/", False, "https://a/models"),
        ("http://[::1]:5", False, "http://[::1]:5"),
        ("http://[::1]", False, "http://[::1]"),
        ("https://a:443/b c", True, "https://a/b%20c"),
        ("ipv4:127.0.0.1:1", False, "http://127.0.0.1:1"),
        ("dns:///a:1", False, "http://a:1"),
        ("http://user:password@a:1/b", False, "http://a:1/b"),
    ],
)
def test_accepts_hosts_and_urls(address, tls, url):
    assert RestEndpoints(address, tls=tls).pick().url == url


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://a", "http://", "http://a:b", "http://a:0", "http://a?x=1", "", "a:x"),
        *("http://a/\ud800", "http://u:\ud800@a", "http://[a]:1", "http://a b"),
    ],
)
def test_rejects_what_is_not_an_http_address(text):
    with pytest.raises(InvalidInputError):
        RestEndpoints(text, tls=False)


def test_refuses_a_unix_socket_by_name():
    with pytest.raises(InvalidInputError, match="a unix socket, which only the gRPC clients support"):
        RestEndpoints("unix:/tmp/socket", tls=False)


def test_endpoints_take_turns_and_skip_those_that_failed():
    now = [0.0]
    endpoints = RestEndpoints("a:1,b:1,c:1", tls=False, clock=lambda: now[0])

    def picked():
        return {endpoints.pick().url for _ in range(6)}

    assert picked() == {"http://a:1", "http://b:1", "http://c:1"}
    a, b, c = (Endpoint(f"http://{name}:1") for name in "abc")
    endpoints.mark_down(b)
    assert picked() == {"http://a:1", "http://c:1"}
    now[0] = 6
    assert picked() == {"http://a:1", "http://b:1", "http://c:1"}, "the server is tried again"
    for endpoint in (a, b, c):
        endpoints.mark_down(endpoint)
    assert picked() == {"http://a:1", "http://b:1", "http://c:1"}, "all failed, so none is skipped"
    endpoints.mark_up(a)
    assert picked() == {"http://a:1"}
