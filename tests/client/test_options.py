import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserving.client import Keepalive, Retry, TfRpcClient, Tls
from tfserving.client.addresses import Targets
from tfserving.client.channels import options_for
from tfserving.client.options import pairs_of
from tfserving.errors import InvalidInputError


@given(st.integers(1, 20), st.floats(0, 1, exclude_max=True))
def test_pauses_stay_in_their_limits(failures, chance):
    retry = Retry(first_pause=0.1, factor=2, longest_pause=3)
    whole = min(0.1 * 2 ** (failures - 1), 3)
    assert whole / 2 <= retry.pause(failures, chance) <= whole


def test_no_attempt_at_all_is_misuse():
    with pytest.raises(InvalidInputError, match="attempts=0"):
        Retry(attempts=0)


def test_tls_wants_pairs_and_files(tmp_path):
    with pytest.raises(InvalidInputError, match="belong together"):
        Tls(certificate="c.pem")
    with pytest.raises(InvalidInputError, match="there is no file"):
        Tls(ca=tmp_path / "none.pem")


def test_metadata_in_any_form():
    expected = (("authorization", "Bearer x"),)
    given = {"Authorization": "Bearer x"}
    assert pairs_of(given) == pairs_of(list(given.items())) == pairs_of(lambda: given) == expected
    assert pairs_of(()) == ()


@pytest.mark.parametrize(
    "metadata", [{"a b": "x"}, {"": "x"}, {"a": "secret\n"}, {"a": "secr\u00e9t"}, {"a": b"secret"}]
)
def test_metadata_that_no_header_can_hold(metadata):
    with pytest.raises(InvalidInputError) as caught:
        TfRpcClient("a:1", metadata=metadata)
    assert "secr" not in str(caught.value)


def options(address, keepalive=Keepalive(), tls=None, count=1):  # noqa: B008 - frozen
    return dict(options_for(Targets(address, 8500), keepalive, tls, count))


def test_what_grpc_is_told():
    told = options("a:1")
    assert told["grpc.max_receive_message_length"] == -1
    assert told["grpc.lb_policy_name"] == "round_robin"
    assert (told["grpc.keepalive_time_ms"], told["grpc.http2.ping_timeout_ms"]) == (10000, 5000)
    assert "grpc.use_local_subchannel_pool" not in told
    assert options("a:1", count=2)["grpc.use_local_subchannel_pool"] == 1
    assert not [name for name in options("a:1", keepalive=None) if "keepalive" in name or "ping" in name]


def test_tls_to_several_hosts_needs_the_name_that_they_share():
    assert "grpc.ssl_target_name_override" not in options("a:1", tls=Tls())
    assert options("a:1,a:2", tls=Tls())["grpc.ssl_target_name_override"] == "a"
    named = options("a:1,b:2", tls=Tls(server_name="c"))
    assert named["grpc.ssl_target_name_override"] == named["grpc.default_authority"] == "c"
    with pytest.raises(InvalidInputError, match="server_name"):
        options("a:1,b:2", tls=Tls())


def test_no_channel_is_misuse():
    with pytest.raises(InvalidInputError, match="channels=0"):
        TfRpcClient("a:1", channels=0)
