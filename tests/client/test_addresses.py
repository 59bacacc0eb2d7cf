import threading

import pytest

from tfserving.client.addresses import Targets, parse
from tfserving.client.rest_endpoints import Endpoints
from tfserving.errors import InvalidInputError, UnavailableError


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("host:1", "host", 1, "host:1"),
        ("host", "host", 8500, "host:8500"),
        ("127.0.0.1:65535", "127.0.0.1", 65535, "127.0.0.1:65535"),
        ("[::1]:9", "::1", 9, "[::1]:9"),
        ("[::1]", "::1", 8500, "[::1]:8500"),
        ("::1", "::1", 8500, "[::1]:8500"),
        ("a.b-c_d:2", "a.b-c_d", 2, "a.b-c_d:2"),
    ],
)
def test_addresses(text, host, port, shown):
    address = parse(text, 8500)
    assert (address.host, address.port, str(address)) == (host, port, shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":1",
        "a:0",
        "a:65536",
        "a:b",
        "a:-1",
        "a: 1",
        "[::1",
        "[::1]x",
        "http://a:1",
        "a/b",
        "a:\u0661",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(InvalidInputError):
        Targets(text, 8500)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1:1", "ipv4:127.0.0.1:1"),
        ("[::1]:1", "ipv6:[::1]:1"),
        ("name:1", "dns:///name:1"),
        ("unix:/tmp/socket", "unix:/tmp/socket"),
        ("127.0.0.1:1, 127.0.0.1:2,", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        (["127.0.0.1:1", "[::1]:2"], "ipv6:[::ffff:127.0.0.1]:1,[::1]:2"),
    ],
)
def test_targets(address, target):
    assert Targets(address, 8500).current() == target


def test_a_socket_is_not_one_of_several():
    with pytest.raises(InvalidInputError, match="unix"):
        Targets("unix:/a,b:1", 8500)
    with pytest.raises(InvalidInputError):
        Targets([], 8500)


class Names:
    def __init__(self):
        self.ips = {"a": ["10.0.0.1"], "b": ["10.0.0.2", "10.0.0.3"]}

    def __call__(self, address):
        if address.host not in self.ips:
            raise OSError(-2, "Name or service not known")
        return self.ips[address.host]


def test_several_names_are_looked_up_now_and_then(eventually):
    names, now = Names(), [0.0]
    targets = Targets("a:1,b:2,127.0.0.1:3", 8500, resolve=names, clock=lambda: now[0])
    first = "ipv4:10.0.0.1:1,10.0.0.2:2,10.0.0.3:2,127.0.0.1:3"
    assert targets.current() == first
    names.ips["a"] = ["10.0.0.9"]
    now[0] = 29
    assert targets.current() == first
    now[0] = 31
    targets.current()
    eventually(lambda: targets.current() == "ipv4:10.0.0.2:2,10.0.0.3:2,10.0.0.9:1,127.0.0.1:3")


def test_a_name_that_is_gone_is_left_out_and_the_last_answer_stands(eventually):
    names, now = Names(), [0.0]
    del names.ips["a"]
    targets = Targets("a:1,b:2", 8500, resolve=names, clock=lambda: now[0])
    expected = "ipv4:10.0.0.2:2,10.0.0.3:2"
    assert targets.current() == expected
    names.ips.clear()
    now[0] = 31
    assert targets.current() == expected
    eventually(lambda: "tfserving-resolve" not in {thread.name for thread in threading.enumerate()})
    assert targets.current() == expected


def test_names_that_lead_nowhere():
    names = Names()
    names.ips.clear()
    with pytest.raises(UnavailableError, match=r"a:1,b:2: none of the names can be resolved .*not known"):
        Targets("a:1,b:2", 8500, resolve=names).current()


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
def test_endpoints(address, tls, url):
    assert Endpoints(address, tls=tls).pick() == url


@pytest.mark.parametrize(
    "text", ["ftp://a", "http://", "http://a:b", "http://a:0", "http://a?x=1", "", "a:x"]
)
def test_what_is_no_endpoint(text):
    with pytest.raises(InvalidInputError):
        Endpoints(text, tls=False)


def test_endpoints_take_turns_past_those_that_failed():
    now = [0.0]
    endpoints = Endpoints("a:1,b:1,c:1", tls=False, clock=lambda: now[0])

    def picked():
        return {endpoints.pick() for _ in range(6)}

    assert picked() == {"http://a:1", "http://b:1", "http://c:1"}
    endpoints.failed("http://b:1")
    assert picked() == {"http://a:1", "http://c:1"}
    now[0] = 6
    assert picked() == {"http://a:1", "http://b:1", "http://c:1"}, "another chance"
    for name in "abc":
        endpoints.failed(f"http://{name}:1")
    assert picked() == {"http://a:1", "http://b:1", "http://c:1"}, "better than nothing"
    endpoints.answered("http://a:1")
    assert picked() == {"http://a:1"}
