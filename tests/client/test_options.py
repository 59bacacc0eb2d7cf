import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserving.client import Retry, TfRestClient, TfRpcClient, Tls
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


def test_tls_rejects_half_a_pair_and_missing_files(tmp_path):
    with pytest.raises(InvalidInputError, match="pass both or neither"):
        Tls(certificate="c.pem")
    with pytest.raises(InvalidInputError, match="does not exist"):
        Tls(ca=tmp_path / "none.pem")


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
