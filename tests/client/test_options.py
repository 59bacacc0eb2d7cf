import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.clients import make_client
from tfserving.client import Keepalive, Retry, TfRestClient, TfRpcClient, Tls
from tfserving.client.options import pairs_of
from tfserving.errors import InvalidInputError


@given(st.integers(1, 20), st.floats(0, 1, exclude_max=True))
def test_jitter_shortens_a_pause_by_at_most_a_half(failures, jitter):
    retry = Retry(first_pause=0.1, factor=2, longest_pause=3)
    whole = min(0.1 * 2 ** (failures - 1), 3)
    assert whole / 2 <= retry.pause(failures, jitter) <= whole


def test_rejects_0_attempts():
    with pytest.raises(InvalidInputError, match="attempts=0"):
        Retry(attempts=0)


def test_tls_rejects_half_a_pair_and_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InvalidInputError, match="pass both or neither"):
        Tls(certificate="c.pem")
    with pytest.raises(InvalidInputError, match=r"TLS ca: cannot read .*none\.pem: No such file"):
        Tls(ca=tmp_path / "none.pem")
    with pytest.raises(InvalidInputError, match=r"TLS ca: .* is not a file"):
        Tls(ca=tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInputError, match=r"TLS ca: .* is not a file"):
        Tls(ca=tmp_path / "pipe")


def test_metadata_may_be_a_mapping_pairs_or_a_function():
    expected = (("authorization", "Bearer x"),)
    given = {"Authorization": "Bearer x"}
    assert pairs_of(given) == pairs_of(list(given.items())) == pairs_of(lambda: given) == expected
    assert pairs_of(()) == ()


@pytest.mark.parametrize(
    "metadata",
    [
        {"a b": "x"},
        {"": "x"},
        {"a": "secret\n"},
        {"a": "secr\u00e9t"},
        {"a": b"secret"},
        {1: "secret"},
        {b"a": "secret"},
        ["secret"],
        5,
    ],
)
@pytest.mark.parametrize("cls", [TfRpcClient, TfRestClient])
def test_rejects_metadata_that_a_header_cannot_hold_without_showing_it(cls, metadata):
    with pytest.raises(InvalidInputError) as caught:
        cls("a:1", metadata=metadata)
    assert "secr" not in str(caught.value)


INVALID_SECONDS = [
    -1,
    -1e-9,
    float("nan"),
    float("inf"),
    -float("inf"),
    1e300,
    1_000_001,
    "5",
    b"5",
    [5],
    True,
]


@pytest.mark.parametrize("value", INVALID_SECONDS)
def test_clients_reject_a_timeout_that_is_not_a_number_of_seconds(kind, value):
    with pytest.raises(InvalidInputError, match=r"^timeout=.* is not a number of seconds from 0 to 1000000"):
        make_client(kind, "127.0.0.1:1", "half", timeout=value)


@pytest.mark.parametrize("value", INVALID_SECONDS)
def test_calls_reject_a_timeout_that_is_not_a_number_of_seconds(client, service, value):
    for call in (
        lambda: client.infer([1], timeout=value),
        lambda: client.status(timeout=value),
        lambda: client.wait_until_available(value),
    ):
        with pytest.raises(InvalidInputError, match="is not a number of seconds") as caught:
            call()
        assert caught.value.server_message is None


@pytest.mark.parametrize("value", [np.float32(30), np.int64(30), Fraction(30), 1_000_000, None])
def test_calls_take_any_real_number_as_timeout(client, value):
    assert client.infer([1], timeout=value)["y"].tolist() == [2.5]


@pytest.mark.parametrize("value", INVALID_SECONDS)
def test_retry_and_keepalive_reject_what_is_not_a_number_of_seconds(value):
    for option in (
        lambda: Retry(first_pause=value),
        lambda: Retry(longest_pause=value),
        lambda: Keepalive(interval=value),
        lambda: Keepalive(timeout=value),
    ):
        with pytest.raises(InvalidInputError, match="is not a number of seconds"):
            option()


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "3"])
def test_retry_rejects_an_invalid_factor(value):
    with pytest.raises(InvalidInputError, match="factor="):
        Retry(factor=value)


def test_pauses_stay_bounded_after_many_failures():
    assert Retry(factor=1000.0, longest_pause=2).pause(10_000, 0) == 2


@pytest.mark.parametrize("value", [0, 1.5, "2", None])
def test_rejects_invalid_counts(value):
    with pytest.raises(InvalidInputError, match="channels="):
        TfRpcClient("127.0.0.1:1", channels=value)
    with pytest.raises(InvalidInputError, match="attempts="):
        Retry(attempts=value)


@pytest.mark.parametrize("value", [1, [["y"]], [b"y"], b"y", [None], object()])
def test_rejects_names_that_are_not_str(client, value):
    with pytest.raises(InvalidInputError, match=r"^outputs="):
        client.infer([1], outputs=value)
    with pytest.raises(InvalidInputError, match=r"^signatures="):
        client.multi_inference([{"x": 1.0}], value)


@pytest.mark.parametrize("method", ["classify", "regress"])
def test_rejects_examples_and_context_of_another_type(client, method):
    with pytest.raises(InvalidInputError, match=r"^examples=1 "):
        getattr(client, method)(1)
    with pytest.raises(InvalidInputError, match=r"^context=1 "):
        getattr(client, method)([{"x": 1.0}], context=1)


def test_takes_examples_from_a_generator(client):
    examples = ({"x": x} for x in (1.0, 2.0))
    assert client.regress(examples, signature="value").tolist() == [0.5, 1.0]
