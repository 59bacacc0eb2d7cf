import json
import math

import ml_dtypes
import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserving.errors import InvalidInputError
from tfserving.server.rest import responses
from tfserving.server.rest.json_body import PIECE_VALUES, parse_body, to_bytes
from tfserving.server.rest.predict_request import Format
from tfserving.server.rest.responses import encode_predictions
from tfserving.wire import messages
from tfserving.wire.model_spec import ModelSpec


def f32(*values):
    return np.array(values, np.float32)


def strings(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def row(**outputs):
    return encode_predictions(outputs, Format.ROW)


def column(**outputs):
    return encode_predictions(outputs, Format.COLUMN)


def test_a_single_output_has_no_name():
    assert row(y=f32(2.5, 3)) == b'{"predictions":[2.5,3.0]}'
    assert column(y=f32(2.5, 3)) == b'{"outputs":[2.5,3.0]}'


def test_several_outputs_have_names():
    outputs = {"a": np.array([[1, 2], [3, 4]], np.int32), "b": f32(0.1, 0.2), "s": strings(b"x", b"y")}
    assert json.loads(row(**outputs)) == {
        "predictions": [{"a": [1, 2], "b": 0.1, "s": "x"}, {"a": [3, 4], "b": 0.2, "s": "y"}]
    }
    assert json.loads(column(**outputs)) == {
        "outputs": {"a": [[1, 2], [3, 4]], "b": [0.1, 0.2], "s": ["x", "y"]}
    }


def test_float32_has_up_to_nine_digits():
    values = f32(0.1, 1 / 3, 16777216, 1e-7, 3.4028235e38, -0.0, 1e-20 / 3)
    text = b"0.1,0.333333343,16777216.0,1e-7,3.40282347e+38,-0.0,3.33333329e-21"
    assert row(y=values) == b'{"predictions":[%b]}' % text
    assert column(y=values, z=np.array(1 / 3)) == b'{"outputs":{"y":[%b],"z":0.3333333333333333}}' % text
    assert row(y=f32(1 / 3), z=f32(0.2)) == b'{"predictions":[{"y":0.333333343,"z":0.2}]}'


def test_non_finite_values_become_tokens():
    odd = f32(math.nan, math.inf, -math.inf, 1)
    assert row(y=odd) == b'{"predictions":[NaN,Infinity,-Infinity,1.0]}'
    assert column(y=odd.reshape(2, 2)) == b'{"outputs":[[NaN,Infinity],[-Infinity,1.0]]}'
    assert column(y=np.array(math.nan)) == b'{"outputs":NaN}'
    assert column(y=odd[:1], s=strings(b"null")) == b'{"outputs":{"y":[NaN],"s":["null"]}}'
    assert row(y=odd[:2].reshape(2, 1), s=strings(b"null", b"NaN")) == (
        b'{"predictions":[{"y":[NaN],"s":"null"},{"y":[Infinity],"s":"NaN"}]}'
    )
    assert row(y=odd[2:], z=odd[:2]) == b'{"predictions":[{"y":-Infinity,"z":NaN},{"y":1.0,"z":Infinity}]}'


def test_strings_of_outputs_named_bytes_become_base64():
    assert row(raw_bytes=strings(b"\x00\xff")) == b'{"predictions":[{"b64":"AP8="}]}'
    assert column(raw_bytes=np.array(b"\xff", object)) == b'{"outputs":{"b64":"/w=="}}'
    assert row(raw_bytes=np.array([[1]], np.uint8)) == b'{"predictions":[[1]]}'


@pytest.mark.parametrize("data", [b"caf\xe9", b'\0\xff"\\\n\x7f/', b"\xed\xa0\x80", "测试".encode("gbk")])
def test_strings_that_are_not_utf8_stay_as_they_are(data):
    for body in (
        row(s=strings(data, b"a")),
        column(s=strings(data, b"a")),
        row(s=strings(data, b"a"), t=strings(b"b", b"\xff")),
        column(s=strings(data, b"a"), t=strings(b"b", b"\xff")),
    ):
        (outputs,) = parse_body(body).values()
        first = outputs["s"] if isinstance(outputs, dict) else outputs
        value = first[0]["s"] if isinstance(first[0], dict) else first[0]
        assert to_bytes(value) == data
    assert row(s=strings(b"caf\xe9", "ü")) == b'{"predictions":["caf\xe9","\xc3\xbc"]}'


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array(5.0, np.float32), b"5.0"),
        (np.array(5, np.int64), b"5"),
        (np.array(True), b"true"),
        (np.array(b"a", object), b'"a"'),
        (np.zeros((0,), np.float32), b"[]"),
        (np.zeros((2, 0), np.float32), b"[[],[]]"),
        (np.zeros((0, 3), np.int32), b"[]"),
        (np.zeros((2, 0), object), b"[[],[]]"),
        (np.array([2**63 - 1, -(2**63)]), b"[9223372036854775807,-9223372036854775808]"),
        (np.array([2**64 - 1], np.uint64), b"[18446744073709551615]"),
        (np.array([-128], np.int8), b"[-128]"),
        (np.arange(6, dtype=">i4").reshape(2, 3).T, b"[[0,3],[1,4],[2,5]]"),
        (np.array([b"a", b"b"]), b'["a","b"]'),
    ],
)
def test_writes_columns_of_every_shape_and_dtype(array, text):
    assert column(y=array) == b'{"outputs":%b}' % text


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": np.array(5.0)},
        {"y": np.zeros((0, 3))},
        {"y": np.zeros(2), "z": np.zeros(3)},
        {"y": np.zeros(2), "z": np.array(1.0)},
    ],
)
def test_rows_need_one_row_for_each_instance(outputs):
    with pytest.raises(InvalidInputError, match=r'row format needs one row.*send "inputs" instead'):
        row(**outputs)


@pytest.mark.parametrize("dtype", [np.float16, np.uint16, np.complex64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("form", Format)
def test_rejects_dtypes_that_json_cannot_express(dtype, form):
    with pytest.raises(InvalidInputError, match=r"output 'y' is .*use gRPC"):
        encode_predictions({"y": np.zeros(2, dtype)}, form)


@pytest.mark.parametrize("form", Format)
def test_rejects_a_signature_without_outputs(form):
    with pytest.raises(InvalidInputError, match="no outputs"):
        encode_predictions({}, form)


ARRAYS = st.sampled_from(["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", "u8", "?", ">f4", ">i8"]).flatmap(
    lambda dtype: hnp.arrays(
        np.dtype(dtype), hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3)
    )
)


@given(ARRAYS, st.sampled_from(Format), st.booleans())
def test_arrays_survive_json(array, form, alone):
    outputs = {"y": array} if alone else {"y": array, "z": np.arange(len(array), dtype=np.float32)}
    (answer,) = json.loads(encode_predictions(outputs, form)).values()
    if not alone:
        answer = answer["y"] if form is Format.COLUMN else [line["y"] for line in answer]
    np.testing.assert_array_equal(np.array(answer, array.dtype), array)


@pytest.mark.parametrize(
    "shape", [(3 * PIECE_VALUES + 1,), (1, 2 * PIECE_VALUES + 5), (2, 3, PIECE_VALUES + 1), (PIECE_VALUES, 3)]
)
@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("alone", [True, False])
def test_large_arrays_are_the_same_json_in_pieces(shape, form, alone):
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    array.flat[[1, PIECE_VALUES, -1]] = np.nan, np.inf, -np.inf
    outputs = {"y": array} if alone else {"y": array, "text_bytes": np.full(len(array), b"a", object)}
    (answer,) = json.loads(encode_predictions(outputs, form)).values()
    if not alone:
        texts = answer["text_bytes"] if form is Format.COLUMN else [line["text_bytes"] for line in answer]
        assert texts == [{"b64": "YQ=="}] * len(array)
        answer = answer["y"] if form is Format.COLUMN else [line["y"] for line in answer]
    np.testing.assert_array_equal(np.array(answer, np.float32), array)


def test_writes_classifications():
    result = messages.ClassificationResponse().result
    for scores in ((0.1, math.nan), (1 / 3,), ()):
        classes = result.classifications.add().classes
        for score in scores:
            classes.add(label=f"l{score:.1f}", score=score)
    assert (
        responses.encode_classifications(result)
        == b'{"results":[[["l0.1",0.1],["lnan",NaN]],[["l0.3",0.333333343]],[]]}'
    )


def test_writes_regressions():
    result = messages.RegressionResponse().result
    for value in (0.1, 2 / 3, -math.inf):
        result.regressions.add(value=value)
    assert responses.encode_regressions(result) == b'{"results":[0.1,0.666666687,-Infinity]}'


def test_rejects_empty_results():
    with pytest.raises(InvalidInputError):
        responses.encode_classifications(messages.ClassificationResponse().result)
    with pytest.raises(InvalidInputError):
        responses.encode_regressions(messages.RegressionResponse().result)


def test_writes_the_status():
    response = messages.GetModelStatusResponse()
    response.model_version_status.add(version=3, state=30).status.SetInParent()
    response.model_version_status.add(version=2, state=50).status.error_code = 5
    assert json.loads(responses.encode_status(response)) == {
        "model_version_status": [
            {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "2", "state": "END", "status": {"error_code": "NOT_FOUND", "error_message": ""}},
        ]
    }


def test_writes_the_metadata():
    signatures = messages.SignatureDefMap()
    json_format.ParseDict(
        {
            "signature_def": {
                "s": {
                    "inputs": {
                        "x": {"name": "x:0", "dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}]}}
                    }
                }
            }
        },
        signatures,
    )
    x = {
        "dtype": "DT_FLOAT",
        "name": "x:0",
        "tensor_shape": {"dim": [{"name": "", "size": "-1"}], "unknown_rank": False},
    }
    assert json.loads(responses.encode_metadata(ModelSpec("m", 123), signatures)) == {
        "model_spec": {"name": "m", "signature_name": "", "version": "123"},
        "metadata": {
            "signature_def": {
                "signature_def": {"s": {"inputs": {"x": x}, "outputs": {}, "method_name": "", "defaults": {}}}
            }
        },
    }


def test_errors_can_contain_any_text():
    text = 'a "quoted" \n \udcff \ud800 \0 é'
    assert json.loads(responses.encode_error(text)) == {"error": 'a "quoted" \n \\udcff \\ud800 \0 é'}


def test_long_errors_are_truncated():
    assert len(responses.encode_error("x" * 10**6)) < 5000
