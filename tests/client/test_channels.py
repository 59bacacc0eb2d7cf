import pytest

from tfserving.client import Keepalive, TfRpcClient, Tls
from tfserving.client.addresses import Targets
from tfserving.client.channels import options_for
from tfserving.errors import ExhaustedError, InvalidInputError


def options(address, keepalive=Keepalive(), tls=None, count=1, limit=1000):  # noqa: B008 - frozen
    return dict(options_for(Targets(address, 8500), keepalive, tls, count, limit))


def test_grpc_options_follow_from_the_clients_options():
    found = options("a:1")
    assert found["grpc.max_receive_message_length"] == 1000
    assert options("a:1", limit=None)["grpc.max_receive_message_length"] == -1
    assert found["grpc.lb_policy_name"] == "round_robin"
    assert found["grpc.dns_min_time_between_resolutions_ms"] == 1000
    assert (found["grpc.keepalive_time_ms"], found["grpc.http2.ping_timeout_ms"]) == (10000, 5000)
    assert "grpc.use_local_subchannel_pool" not in found
    assert options("a:1", count=2)["grpc.use_local_subchannel_pool"] == 1
    assert not [name for name in options("a:1", keepalive=None) if "keepalive" in name or "ping" in name]


def test_tls_to_several_hosts_requires_a_server_name():
    assert "grpc.ssl_target_name_override" not in options("a:1", tls=Tls())
    assert options("a:1,a:2", tls=Tls())["grpc.ssl_target_name_override"] == "a"
    named = options("a:1,b:2", tls=Tls(server_name="c"))
    assert named["grpc.ssl_target_name_override"] == named["grpc.default_authority"] == "c"
    with pytest.raises(InvalidInputError, match="server_name"):
        options("a:1,b:2", tls=Tls())


def test_channel_options_override_those_of_the_client(rpc_server):
    options = [("grpc.max_send_message_length", 1)]
    with TfRpcClient(rpc_server.address, "half", channel_options=options) as client:
        with pytest.raises(ExhaustedError, match="larger than max"):
            client.infer([1])


def test_rejects_0_channels():
    with pytest.raises(InvalidInputError, match="channels=0"):
        TfRpcClient("a:1", channels=0)
