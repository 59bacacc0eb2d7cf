import threading

import pytest

from tfserving.client.addresses import Target, Targets, parse_address
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
        ("ipv4:127.0.0.1:9", "127.0.0.1", 9, "127.0.0.1:9"),
        ("ipv6:[::1]:9", "::1", 9, "[::1]:9"),
        ("dns:host:9", "host", 9, "host:9"),
        ("dns:///host:9", "host", 9, "host:9"),
        ("dns:9", "dns", 9, "dns:9"),
        ("b\u00fccher.example:1", "xn--bcher-kva.example", 1, "xn--bcher-kva.example:1"),
    ],
)
def test_parses_addresses(text, host, port, shown):
    address = parse_address(text, 8500)
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
        "a:b:1",
        "[a]:1",
        "[::1]]:1",
        "a\ud800:1",
        "a\0:1",
        "\u00fc" * 70 + ":1",
        "unix:",
        "unix:/\ud800",
        "unix:/a\0",
    ],
)
def test_rejects_what_is_not_an_address(text):
    with pytest.raises(InvalidInputError):
        Targets(text, 8500)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ipv4:name:1", "'ipv4:name:1': 'name' is not an IPv4 address"),
        ("ipv6:127.0.0.1:1", "'127.0.0.1' is not an IPv6 address"),
        ("dns://8.8.8.8/name:1", "names a DNS server, which is not supported"),
        ("xds:///name", "has the scheme 'xds', which is not supported"),
        ("vsock:1:2", "has the scheme 'vsock', which is not supported"),
    ],
)
def test_refuses_other_grpc_names_by_name(text, words):
    with pytest.raises(InvalidInputError, match=words):
        Targets(text, 8500)


@pytest.mark.parametrize(
    ("address", "what"),
    [([b"a:1"], "of type bytes"), (b"a:1", "of type bytes"), (8500, "of type int"), (None, "None")],
)
def test_rejects_an_address_that_is_not_a_str(address, what):
    with pytest.raises(InvalidInputError, match=f"an address is {what}, expected a str"):
        Targets(address, 8500)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1:1", "ipv4:127.0.0.1:1"),
        ("[::1]:1", "ipv6:[::1]:1"),
        ("name:1", "dns:///name:1"),
        ("unix:/tmp/socket", "unix:/tmp/socket"),
        ("unix-abstract:socket", "unix-abstract:socket"),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("127.0.0.1:1, 127.0.0.1:2,", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        (["127.0.0.1:1", "[::1]:2"], "ipv6:[::ffff:127.0.0.1]:1,[::1]:2"),
    ],
)
def test_addresses_become_one_grpc_target(address, target):
    assert Targets(address, 8500).current() == Target(target)


def test_rejects_a_socket_among_several_addresses_and_no_address():
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


def test_several_names_are_resolved_again_after_10_seconds(eventually):
    names, now = Names(), [0.0]
    targets = Targets("a:1,b:2,127.0.0.1:3", 8500, resolve=names, clock=lambda: now[0])
    first = Target("ipv4:10.0.0.1:1,10.0.0.2:2,10.0.0.3:2,127.0.0.1:3")
    assert targets.current() == first
    names.ips["a"] = ["10.0.0.9"]
    now[0] = 9
    assert targets.current() == first
    now[0] = 11
    targets.current()
    eventually(lambda: targets.current() == Target("ipv4:10.0.0.2:2,10.0.0.3:2,10.0.0.9:1,127.0.0.1:3"))


def test_a_single_name_is_resolved_every_10_seconds_while_there_are_calls(eventually):
    names, now = Names(), [0.0]
    targets = Targets("b:1", 8500, resolve=names, clock=lambda: now[0])
    assert targets.current() == Target("dns:///b:1")
    now[0] = 9
    assert targets.current() == Target("dns:///b:1")
    now[0] = 11
    targets.current()
    eventually(lambda: targets.current() == Target("dns:///b:1", ("10.0.0.2", "10.0.0.3")))
    names.ips["b"] = ["10.0.0.4", "10.0.0.3", "10.0.0.2"]
    now[0] = 22
    targets.current()
    eventually(lambda: targets.current() == Target("dns:///b:1", ("10.0.0.2", "10.0.0.3", "10.0.0.4")))
    names.ips["b"].reverse()
    now[0] = 33
    targets.current()
    eventually(lambda: "tfserving-resolve" not in {thread.name for thread in threading.enumerate()})
    assert targets.current() == Target("dns:///b:1", ("10.0.0.2", "10.0.0.3", "10.0.0.4"))


def test_a_proxy_resolves_a_single_name():
    now = [0.0]
    targets = Targets("b:1", 8500, resolve=lambda address: pytest.fail("resolved"), clock=lambda: now[0])
    targets.leave_to_proxy()
    for now[0] in (0, 11, 22):
        assert targets.current() == Target("dns:///b:1")
    assert "tfserving-resolve" not in {thread.name for thread in threading.enumerate()}


def test_a_name_that_does_not_resolve_is_omitted_and_the_last_target_stays(eventually):
    names, now = Names(), [0.0]
    del names.ips["a"]
    targets = Targets("a:1,b:2", 8500, resolve=names, clock=lambda: now[0])
    expected = Target("ipv4:10.0.0.2:2,10.0.0.3:2")
    assert targets.current() == expected
    names.ips.clear()
    now[0] = 11
    assert targets.current() == expected
    eventually(lambda: "tfserving-resolve" not in {thread.name for thread in threading.enumerate()})
    assert targets.current() == expected


def test_names_that_do_not_resolve_are_unavailable():
    names = Names()
    names.ips.clear()
    with pytest.raises(UnavailableError, match=r"a:1,b:2: none of the names resolves .*not known"):
        Targets("a:1,b:2", 8500, resolve=names).current()
