import contextlib
import json
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserving.client.rest_codec import RestCodec
from tfserving.client.rest_json import dumps, from_json, loads, to_json
from tfserving.errors import InvalidInputError, ProtocolError, UnsupportedError
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import Signature, TensorInfo

NUMBERS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i8"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def info(dtype, shape=None):
    return TensorInfo("y", dtype, shape)


@pytest.fixture(params=["orjson", "json"])
def with_and_without_orjson(request, monkeypatch):
    if request.param == "json":
        monkeypatch.setitem(sys.modules, "orjson", None)


def round_trip(array):
    value, finite = to_json(array)
    dtype = DType.of(array.dtype)
    return from_json(loads(dumps(value, plain=finite)), info(dtype, array.shape))


@given(st.sampled_from(NUMBERS).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), SHAPES)))
def test_numbers_come_back_bit_by_bit(array):
    for given_array in (array, array.T):
        got = round_trip(given_array)
        expected = given_array.astype(given_array.dtype.newbyteorder("="))
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert np.array_equal(got, expected, equal_nan=got.dtype.kind == "f")
        if got.dtype.kind == "f":
            numbers = ~np.isnan(expected)
            assert np.array_equal(np.signbit(got)[numbers], np.signbit(expected)[numbers])


def test_both_writers_and_readers(with_and_without_orjson):
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
    with pytest.raises(ProtocolError, match="no JSON"):
        loads(b"{")
    with pytest.raises(ProtocolError, match="no JSON"):
        loads(b"[" * 100_000)


def test_what_json_has_no_form_for():
    with pytest.raises(UnsupportedError, match="TfRpcClient"):
        to_json(np.array([1j], np.complex64))


def test_an_empty_output_takes_its_shape_from_the_signature():
    assert from_json([], info(DType.DT_FLOAT, (None, 3, 4))).shape == (0, 3, 4)
    assert from_json([[], []], info(DType.DT_FLOAT, (None, None, 4))).shape == (2, 0, 4)
    assert from_json([], info(DType.DT_FLOAT, None)).shape == (0,)
    assert from_json([], info(DType.DT_STRING, (None,))).tolist() == []


def test_large_integers_beside_small_ones():
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


def infos(*names):
    return {name: TensorInfo(name, DType.DT_FLOAT, None) for name in names}


ONE = Signature("one", "m", infos("x"), infos("y"))
TWO = Signature("two", "m", infos("a", "b"), infos("p", "q"))


def body_of(codec, arrays, spec=ModelSpec("m")):  # noqa: B008 - frozen
    inputs = {name: info(DType.of(array.dtype)) for name, array in arrays.items()}
    signature = Signature("s", "m", inputs, {})
    exchange, body = codec.predictor(spec, signature, ())
    return exchange.path, json.loads(body(arrays))


def floats(*values):
    return np.array(values, np.float32)


def test_bodies_in_both_formats():
    one, two = {"x": floats(1, 2)}, {"a": floats(1, 2), "b": floats(3, 4)}
    columns, rows = RestCodec(), RestCodec(row_format=True)
    assert body_of(columns, one) == ("/v1/models/m:predict", {"inputs": {"x": [1, 2]}})
    assert body_of(rows, one)[1] == {"instances": [1, 2]}
    assert body_of(columns, two)[1] == {"inputs": {"a": [1, 2], "b": [3, 4]}}
    assert body_of(rows, two)[1] == {"instances": [{"a": 1, "b": 3}, {"a": 2, "b": 4}]}
    assert body_of(rows, {"a": np.array(["s"], object), "b": np.zeros((1, 2))})[1] == {
        "instances": [{"a": "s", "b": [0, 0]}]
    }
    path, body = body_of(columns, one, ModelSpec("m", 3, None, "sig"))
    assert path == "/v1/models/m/versions/3:predict"
    assert body["signature_name"] == "sig"
    assert body_of(columns, one, ModelSpec("m", None, "a/b"))[0] == "/v1/models/m/labels/a%2Fb:predict"


@pytest.mark.parametrize("arrays", [{"x": np.float32(1)}, {"a": floats(1), "b": floats(1, 2)}])
def test_rows_need_one_batch_dimension(arrays):
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    with pytest.raises(InvalidInputError, match="row_format=False"):
        body_of(RestCodec(row_format=True), arrays)


@pytest.mark.parametrize(
    ("signature", "reply", "expected"),
    [
        (ONE, {"outputs": [1, 2]}, {"y": [1, 2]}),
        (ONE, {"outputs": 1.5}, {"y": 1.5}),
        (ONE, {"predictions": [1, 2]}, {"y": [1, 2]}),
        (TWO, {"outputs": {"p": 1, "q": [2]}}, {"p": 1, "q": [2]}),
        (TWO, {"predictions": [{"p": 1, "q": 2}, {"p": 3, "q": 4}]}, {"p": [1, 3], "q": [2, 4]}),
        (TWO, {"predictions": []}, {"p": [], "q": []}),
    ],
)
def test_answers_in_both_formats(signature, reply, expected):
    decode = RestCodec().predictor(ModelSpec("m"), signature, ())[0].decode
    got = decode(json.dumps(reply).encode())
    assert {name: array.tolist() for name, array in got.items()} == expected
    assert all(array.dtype == np.float32 for array in got.values())


@pytest.mark.parametrize(
    "reply",
    [
        {},
        [],
        None,
        {"outputs": [1], "predictions": [1]},
        {"outputs": {"p": 1}},
        {"outputs": {"p": 1, "q": 1, "r": 1}},
        {"outputs": [1]},
        {"predictions": [1]},
        {"predictions": [{"p": 1}]},
        {"predictions": 1},
    ],
)
def test_answers_of_another_form_are_protocol_errors(reply):
    decode = RestCodec().predictor(ModelSpec("m"), TWO, ())[0].decode
    with pytest.raises(ProtocolError):
        decode(json.dumps(reply).encode())


@pytest.mark.parametrize(
    "reply", [{}, [], {"results": 1}, {"results": [1]}, {"results": [[["a"]]]}, {"results": None}]
)
def test_classifications_of_another_form_are_protocol_errors(reply):
    with pytest.raises(ProtocolError):
        RestCodec().classify(ModelSpec("m"), [], None).decode(json.dumps(reply).encode())


@given(
    st.recursive(
        st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_is_an_answer_or_a_protocol_error(reply):
    data = json.dumps(reply).encode()
    codec, spec = RestCodec(), ModelSpec("m")
    for exchange in (
        codec.predictor(spec, ONE, ())[0],
        codec.classify(spec, [], None),
        codec.regress(spec, [], None),
        codec.metadata(spec),
        codec.status(spec),
    ):
        with contextlib.suppress(ProtocolError):
            exchange.decode(data)
