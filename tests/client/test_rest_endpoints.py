import pytest

from tfserving.client.rest_endpoints import RestEndpoints
from tfserving.errors import InvalidInputError


@pytest.mark.parametrize(
    ("address", "tls", "url"),
    [
        ("a", False, "http://a:8501"),
        ("a:1", False, "http://a:1"),
        ("a:1", True, "https://a:1"),
        ("https://a/models/", False, "https://a/models"),
        ("http://[::1]:5", True, "http://[::1]:5"),
    ],
)
def test_accepts_hosts_and_urls(address, tls, url):
    assert RestEndpoints(address, tls=tls).pick() == url


@pytest.mark.parametrize(
    "text", ["ftp://a", "http://", "http://a:b", "http://a:0", "http://a?x=1", "", "a:x"]
)
def test_rejects_what_is_not_an_http_address(text):
    with pytest.raises(InvalidInputError):
        RestEndpoints(text, tls=False)


def test_endpoints_take_turns_and_skip_those_that_failed():
    now = [0.0]
    endpoints = RestEndpoints("a:1,b:1,c:1", tls=False, clock=lambda: now[0])

    def picked():
        return {endpoints.pick() for _ in range(6)}

    assert picked() == {"http://a:1", "http://b:1", "http://c:1"}
    endpoints.mark_down("http://b:1")
    assert picked() == {"http://a:1", "http://c:1"}
    now[0] = 6
    assert picked() == {"http://a:1", "http://b:1", "http://c:1"}, "the server is tried again"
    for name in "abc":
        endpoints.mark_down(f"http://{name}:1")
    assert picked() == {"http://a:1", "http://b:1", "http://c:1"}, "all failed, so none is skipped"
    endpoints.mark_up("http://a:1")
    assert picked() == {"http://a:1"}
