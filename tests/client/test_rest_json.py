import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserving.client.rest_json import decode_json, encode_json, from_json, to_json
from tfserving.errors import ProtocolError, UnsupportedError
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import TensorInfo

NUMBERS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i8"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def info(dtype, shape=None):
    return TensorInfo("y", dtype, shape)


def round_trip(array):
    value, finite = to_json(array)
    dtype = DType.of(array.dtype)
    return from_json(decode_json(encode_json(value, plain=finite)), info(dtype, array.shape))


@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), SHAPES)))
def test_numbers_survive_a_round_trip_exactly(array):
    for given_array in (array, array.T):
        got = round_trip(given_array)
        expected = given_array.astype(given_array.dtype.newbyteorder("="))
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert np.array_equal(got, expected, equal_nan=got.dtype.kind == "f")
        if got.dtype.kind == "f":
            numbers = ~np.isnan(expected)
            assert np.array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])


def test_round_trips_with_and_without_orjson(json_library):
    for array in (
        np.array([0.1, 1e-45, 3.4028235e38, -0.0], np.float32),
        np.array([np.nan, np.inf, -np.inf]),
        np.array([2**63, 2**64 - 1], np.uint64),
        np.arange(12, dtype=np.int16).reshape(3, 4).T,
        np.array(True),
        np.zeros((2, 0, 3), np.float32),
        np.array([1.5, -2.25], ml_dtypes.bfloat16),
    ):
        got = round_trip(array)
        assert got.tobytes() == array.tobytes()
        assert got.dtype == array.dtype
    text = np.array([["ä", b"\x00\xff"]], object)
    assert round_trip(text).tolist() == [["ä".encode(), b"\x00\xff"]]
    with pytest.raises(ProtocolError, match="is not JSON"):
        decode_json(b"{")
    with pytest.raises(ProtocolError, match="is not JSON"):
        decode_json(b"[" * 100_000)


def test_text_that_utf_8_cannot_represent_raises_unicode_encode_error(json_library):
    with pytest.raises(UnicodeEncodeError):
        encode_json({"x": ["\ud800"]}, plain=True)


def test_strings_of_responses_need_not_be_utf8():
    response = decode_json(b'{"outputs": ["caf\xe9", "\xff\xed\xa0\x80", "\xc3\xa9"]}')
    array = from_json(response["outputs"], info(DType.DT_STRING))
    assert array.tolist() == [b"caf\xe9", b"\xff\xed\xa0\x80", "é".encode()]


@pytest.mark.parametrize(
    "dtype", [DType.DT_COMPLEX64, *(dtype for dtype in DType if dtype.quantized_as)], ids=lambda d: d.label
)
def test_complex_and_quantized_numbers_are_unsupported(dtype):
    with pytest.raises(UnsupportedError, match=f"cannot represent {dtype.label} numbers; use TfRpcClient"):
        to_json(np.zeros(1, dtype.numpy))


def test_an_empty_output_takes_its_shape_from_the_signature():
    assert from_json([], info(DType.DT_FLOAT, (None, 3, 4))).shape == (0, 3, 4)
    assert from_json([[], []], info(DType.DT_FLOAT, (None, None, 4))).shape == (2, 0, 4)
    assert from_json([], info(DType.DT_FLOAT, None)).shape == (0,)
    assert from_json([], info(DType.DT_STRING, (None,))).tolist() == []


def test_large_integers_are_exact():
    assert from_json([0, 2**63 + 1], info(DType.DT_UINT64)).tolist() == [0, 2**63 + 1]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([1.5], DType.DT_INT32),
        (["1.5"], DType.DT_FLOAT),
        ([True], DType.DT_FLOAT),
        ([1], DType.DT_BOOL),
        ([[1], [1, 2]], DType.DT_FLOAT),
        ([None], DType.DT_FLOAT),
        ({"a": 1}, DType.DT_FLOAT),
        ([1], DType.DT_STRING),
        ([{"b64": "?"}], DType.DT_STRING),
        ([{"b64": 1}], DType.DT_STRING),
        ([["a"], "b"], DType.DT_STRING),
        ([2**70], DType.DT_INT64),
    ],
)
def test_outputs_of_another_kind_are_protocol_errors(value, dtype):
    with pytest.raises(ProtocolError, match="output 'y'"):
        from_json(value, info(dtype))
