import json
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserving.errors import InvalidInputError, UnsupportedError
from tfserving.server.rest import number_arrays, predict_request
from tfserving.server.rest.predict_request import Format, PredictBody, parse_predict
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import PREDICT_METHOD, Signature, TensorInfo


@pytest.fixture(
    params=[0, predict_request.LONG_BYTES], ids=["parsed as large", "parsed as small"], autouse=True
)
def both_ways(request, monkeypatch):
    """Run each test with both ways to parse a body."""
    monkeypatch.setattr(predict_request, "LONG_BYTES", request.param)


def signature(**dtypes):
    infos = {name: TensorInfo(name, dtype, None) for name, dtype in dtypes.items()}
    return Signature("serving_default", PREDICT_METHOD, infos, {})


def outcome(body, dtypes):
    try:
        return parse_predict(body).read(signature(**dtypes)), None
    except InvalidInputError as error:
        return {}, error
    except UnsupportedError as error:
        return {}, error


def read(request, **dtypes):
    """The arrays of a request, or its error; the same with simdjson and without it."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    arrays, error = outcome(body, dtypes)
    with mock.patch.object(number_arrays, "simdjson", None):
        others, other_error = outcome(body, dtypes)
    assert repr(error) == repr(other_error)
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert array.dtype == others[name].dtype
        np.testing.assert_array_equal(array, others[name])
    if error:
        raise error
    return arrays


def one(instances, dtype):
    """The array of the single input x; the same in row and in column format."""
    row = read({"instances": instances}, x=dtype)["x"]
    column = read({"inputs": {"x": instances}}, x=dtype)["x"]
    assert row.dtype == column.dtype == dtype.numpy
    assert row.shape == column.shape
    assert row.tolist() == column.tolist()
    return row


NUMERIC = {
    DType.DT_FLOAT: (
        [1.5, -2.25, 16777217, 3e38, 2**64],
        [1.5, -2.25, 16777216.0, np.float32(3e38), 2.0**64],
    ),
    DType.DT_DOUBLE: ([1.5, 0.1, 1e300, 2**53 + 1], [1.5, 0.1, 1e300, 2.0**53]),
    DType.DT_INT8: ([-128, 127, 300, -129], [-128, 127, 44, 127]),
    DType.DT_UINT8: ([0, 255, -1, 256], [0, 255, 255, 0]),
    DType.DT_INT16: ([-32768, 32767, 2**31 - 1], [-32768, 32767, -1]),
    DType.DT_INT32: ([-(2**31), 2**31 - 1], [-(2**31), 2**31 - 1]),
    DType.DT_INT64: ([-(2**63), 2**63 - 1, 2**53 + 1], [-(2**63), 2**63 - 1, 2**53 + 1]),
    DType.DT_UINT32: ([0, 2**32 - 1], [0, 2**32 - 1]),
    DType.DT_UINT64: ([0, 2**64 - 1], [0, 2**64 - 1]),
    DType.DT_BOOL: ([True, False], [True, False]),
}


@pytest.mark.parametrize("dtype", NUMERIC)
def test_converts_values_of_every_dtype(dtype):
    given_values, expected = NUMERIC[dtype]
    assert one(given_values, dtype).tolist() == expected
    assert one([[value] for value in given_values], dtype).tolist() == [[value] for value in expected]


def test_converts_strings_and_bytes():
    array = one(["wörld", "", {"b64": "AAEC/w=="}, "\0"], DType.DT_STRING)
    assert array.tolist() == ["wörld".encode(), b"", b"\x00\x01\x02\xff", b"\0"]


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("aGVsbG8=", b"hello"),
        ("aGVsbG8", b"hello"),
        ("aGVs\nbG8=\n", b"hello"),
        ("AA", b"\0"),
        ("+/+/", b"\xfb\xff\xbf"),
    ],
)
def test_accepts_base64_with_and_without_padding(text, data):
    assert one([{"b64": text}], DType.DT_STRING).tolist() == [data]


def test_floats_can_be_infinite_and_nan():
    array = read(b'{"instances": [NaN, Infinity, -Infinity]}', x=DType.DT_FLOAT)["x"]
    np.testing.assert_array_equal(array, np.array([math.nan, math.inf, -math.inf], np.float32))


def test_numbers_beyond_float32_become_infinite():
    largest = float(np.finfo(np.float32).max)
    numbers = [1e40, -1e300, 3.4028235677973366e38, -3.4028235e38, largest, 2**63]
    expected = [math.inf, -math.inf, math.inf, -largest, largest, 2.0**63]
    assert one(numbers, DType.DT_FLOAT).tolist() == expected
    assert read(b'{"instances": [1e40, NaN]}', x=DType.DT_FLOAT)["x"][0] == math.inf
    with pytest.raises(InvalidInputError, match=r"instances\[1\] is true"):
        read(b'{"instances": [1e40, true]}', x=DType.DT_FLOAT)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (
            "1",
            DType.DT_FLOAT,
            r'instances\[1\] is "1", but input \'x\' is float32; send the number without',
        ),
        (True, DType.DT_FLOAT, r"is true.*send 1 or 0"),
        (None, DType.DT_FLOAT, r"is null.*send a number"),
        ({"b64": "AA=="}, DType.DT_FLOAT, r'is a {"b64": ...}.*send a number'),
        (1.5, DType.DT_INT32, r"is 1.5, but input 'x' is int32; send an integer"),
        (1.0, DType.DT_INT64, r"is 1.0.*without a decimal point"),
        (math.nan, DType.DT_INT64, r"is NaN.*send an integer"),
        (2**31, DType.DT_INT32, "is 2147483648.*send an integer from -2147483648 to 2147483647"),
        (2**31, DType.DT_INT8, "send an integer from -2147483648 to 2147483647"),
        (-(2**31) - 1, DType.DT_UINT8, "send an integer from"),
        (2**63, DType.DT_INT64, "send an integer from -9223372036854775808 to 9223372036854775807"),
        (2**70, DType.DT_INT64, r"is 1.18\d*e\+21.*send an integer from"),
        (2**70, DType.DT_UINT64, "send an integer from 0 to 18446744073709551615"),
        (-1, DType.DT_UINT32, "send an integer from 0 to 4294967295"),
        (-1, DType.DT_UINT64, "is -1.*send an integer from 0"),
        (True, DType.DT_INT32, "is true.*send 1 or 0"),
        ("1", DType.DT_INT32, "without quotes"),
        (1, DType.DT_BOOL, "is 1, but input 'x' is bool; send true or false"),
        ("true", DType.DT_BOOL, "send true or false"),
        (1, DType.DT_STRING, "is 1, but input 'x' is string; send a string"),
        (None, DType.DT_STRING, "send a string"),
        ({"b64": "!!!!"}, DType.DT_STRING, "send valid base64"),
        ({"b64": "a"}, DType.DT_STRING, "send valid base64"),
        ({"b64": "-_-_"}, DType.DT_STRING, "the alphabet with"),
        ({"b64": "é"}, DType.DT_STRING, "send valid base64"),
    ],
)
def test_rejects_values_that_a_dtype_does_not_accept(value, dtype, message):
    good = "a" if dtype is DType.DT_STRING else True if dtype is DType.DT_BOOL else 1
    for request in ({"instances": [good, value]}, {"instances": [[good], [value]]}):
        with pytest.raises(InvalidInputError, match=message.replace(r"\[1\]", r"\[1\](\[0\])?")):
            read(request, x=dtype)
    with pytest.raises(InvalidInputError, match=message.replace("instances", "inputs.x")):
        read({"inputs": {"x": [good, value]}}, x=dtype)


def test_rejects_a_lone_high_surrogate():
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        read(b'{"instances": [NaN, "\\ud800"]}', x=DType.DT_STRING)
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        read(b'{"instances": ["\\ud800"], "x": NaN}', x=DType.DT_STRING)


def test_strings_need_not_be_utf8():
    for body in (
        b'{"instances": ["\xff:", {"b64": "AA=="}]}',
        b'{"inputs": {"x": ["\xff:", "\0"]}}'.replace(b"\0", b"\\u0000"),
    ):
        assert read(body, x=DType.DT_STRING)["x"].tolist() == [b"\xff:", b"\0"]
    with pytest.raises(InvalidInputError, match=r"instances\[1\] is \"caf\udce9\", but input 'x' is float32"):
        read(b'{"instances": [1, "caf\xe9"]}', x=DType.DT_FLOAT)
    with pytest.raises(InvalidInputError, match=r"'signature_name' is .*not UTF-8"):
        parse_predict(b'{"instances": [1], "signature_name": "caf\xe9"}')


def test_the_first_of_equal_keys_counts():
    for body in (
        b'{"instances": [{"x": 1, "x": 2}], "instances": 3}',
        b'{"inputs": {"x": [1], "x": [2]}}',
        b'{"inputs": [1], "inputs": [2]}',
    ):
        assert read(body, x=DType.DT_FLOAT)["x"].tolist() == [1]
    parsed = parse_predict(b'{"inputs": [1], "signature_name": "a", "signature_name": "b"}')
    assert parsed.signature == "a"
    with pytest.raises(InvalidInputError, match="has 'b64'"):
        read(b'{"instances": [{"b64": "AA==", "b64": "AA=="}]}', x=DType.DT_STRING)
    with pytest.raises(InvalidInputError, match=r"instances\[0\]\[1\] is an object.*single key \"b64\""):
        read(b'{"instances": [["a", {"b64": "AA==", "b64": "AA=="}]]}', x=DType.DT_STRING)


def test_errors_contain_the_path_of_the_value():
    with pytest.raises(InvalidInputError, match=r"^instances\[1\]\.b\[0\]\[2\] is 1\.5, but input 'b'"):
        read({"instances": [{"b": [[1, 2, 3]]}, {"b": [[4, 5, 1.5]]}]}, b=DType.DT_INT32)
    with pytest.raises(InvalidInputError, match=r"^instances\[1\]\[0\]\[2\] is 1\.5"):
        read({"instances": [[[1, 2, 3]], [[4, 5, 1.5]]]}, b=DType.DT_INT32)
    with pytest.raises(InvalidInputError, match=r"^inputs\[0\]\[1\] is true"):
        read({"inputs": [[1, True]]}, b=DType.DT_INT32)
    with pytest.raises(InvalidInputError, match=r"^inputs is true"):
        read({"inputs": True}, b=DType.DT_INT32)
    with pytest.raises(
        InvalidInputError, match=r"^instances\[1\]\.b is a list of 2, but instances\[0\]\.b is"
    ):
        read({"instances": [{"b": [1]}, {"b": [1, 2]}]}, b=DType.DT_INT32)


@pytest.mark.parametrize("dtype", [DType.DT_HALF, DType.DT_BFLOAT16, DType.DT_UINT16, DType.DT_COMPLEX64])
def test_rejects_dtypes_that_json_values_cannot_be_converted_to(dtype):
    with pytest.raises(InvalidInputError, match=f"'x' is {dtype.label}.*use gRPC") as caught:
        read({"instances": [1]}, x=dtype)
    assert caught.value.code == "INVALID_ARGUMENT"
    with pytest.raises(UnsupportedError, match="use gRPC"):
        read({"inputs": [1]}, x=dtype)


def test_reads_rows_with_several_inputs():
    arrays = read(
        {"instances": [{"a": [1, 2], "s": "x"}, {"s": {"b64": "AA=="}, "a": [3, 4]}]},
        a=DType.DT_FLOAT,
        s=DType.DT_STRING,
    )
    assert arrays["a"].tolist() == [[1, 2], [3, 4]]
    assert arrays["a"].dtype == np.float32
    assert arrays["s"].tolist() == [b"x", b"\0"]


def test_reads_columns_with_several_inputs_and_ignores_other_keys():
    arrays = read({"inputs": {"a": [[1, 2]], "b": 3, "other": "?"}}, a=DType.DT_FLOAT, b=DType.DT_INT32)
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [[1, 2]], "b": 3}
    assert arrays["b"].shape == ()


@pytest.mark.parametrize(
    ("value", "shape"),
    [([], (0,)), ([[], []], (2, 0)), ([[[]]], (1, 1, 0)), (4.0, ()), ([[1, 2, 3], [4, 5, 6]], (2, 3))],
)
@pytest.mark.parametrize("dtype", [DType.DT_FLOAT, DType.DT_INT32])
def test_columns_keep_their_shape(value, shape, dtype):
    array = read({"inputs": value}, x=dtype)["x"] if value != 4.0 else read({"inputs": 4}, x=dtype)["x"]
    assert array.shape == shape
    assert array.dtype == dtype.numpy


@pytest.mark.parametrize("dtype", [DType.DT_STRING, DType.DT_BOOL, DType.DT_HALF])
def test_columns_can_be_empty(dtype):
    array = read({"inputs": [[], []]}, x=dtype)["x"]
    assert array.shape == (2, 0)
    assert array.dtype == dtype.numpy


def test_missing_inputs_are_left_to_the_service():
    assert set(read({"instances": [{"a": 1}]}, a=DType.DT_FLOAT, b=DType.DT_FLOAT)) == {"a"}
    assert set(read({"inputs": {"a": 1}}, a=DType.DT_FLOAT, b=DType.DT_FLOAT)) == {"a"}
    assert read({"inputs": {}}, a=DType.DT_FLOAT) == {}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"instances": [1, {"x": 1}]}, r"instances\[1\] is an object, but instances\[0\] is a plain value"),
        ({"instances": [{"x": 1}, 1]}, r"instances\[1\] is a plain value, but instances\[0\] is an object"),
        ({"instances": [{"x": 1}, {"b64": "AA=="}]}, r"instances\[1\] is a plain value"),
        ({"instances": [{"x": 1}, {}]}, r"instances\[1\] has the keys , but instances\[0\] has x"),
        ({"instances": [{"x": 1, "z": 1}]}, r"instances\[0\] has 'z', which is not an input of .*inputs: x"),
        ({"instances": [{"b64": 1}]}, r"instances\[0\] has 'b64', which is not an input"),
        ({"instances": [[1], [1, 2]]}, "is a list of 2, but"),
        ({"inputs": [[1], 2]}, "is not a list, but"),
        ({"inputs": {"x": [[1], [{}]]}}, r"inputs\.x\[1\]\[0\] is an object"),
    ],
)
def test_rejects_inconsistent_instances(request_, message):
    with pytest.raises(InvalidInputError, match=message):
        read(request_, x=DType.DT_FLOAT)


@pytest.mark.parametrize(
    "request_", [{"instances": [1]}, {"inputs": [1]}, {"instances": [[1]]}, {"inputs": 1}]
)
def test_values_need_names_if_there_are_several_inputs(request_):
    with pytest.raises(InvalidInputError, match=r"without input names.*inputs: a, b.*as keys"):
        read(request_, a=DType.DT_FLOAT, b=DType.DT_FLOAT)


def test_a_signature_without_inputs_cannot_be_called():
    with pytest.raises(InvalidInputError, match="has no inputs"):
        read({"instances": [1]})


def test_rejects_ragged_lists_that_are_nested_too_deep():
    one, two = (b"[" * 70 + values + b"]" * 70 for values in (b"true", b"true, true"))
    with pytest.raises(InvalidInputError, match="71 deep; the maximum is 32"):
        read(b'{"instances": [' + one + b"," + two + b"]}", x=DType.DT_BOOL)


def test_rejects_lists_that_are_nested_too_deep():
    text = b'{"instances": ' + b"[" * 33 + b"1" + b"]" * 33 + b"}"
    with pytest.raises(InvalidInputError, match="33 deep; the maximum is 32"):
        read(text, x=DType.DT_FLOAT)
    with pytest.raises(InvalidInputError, match="33 deep; the maximum is 32"):
        read(text.replace(b"1", b"true"), x=DType.DT_BOOL)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[1, 2]", "the body is a list; send a JSON object"),
        (b"5", "the body is 5"),
        (b'"' + b"x" * 100 + b'"', r"the body is \"x{56}\.\.\.;"),
        (b"{}", "exactly one of .*it has neither"),
        (b'{"instances": [1], "inputs": [1]}', "exactly one of .*it has both"),
        (b'{"instances": []}', "an empty list"),
        (b'{"instances": [ ]}', "an empty list"),
        (b'{"instances": 1.0}', "'instances' is 1.0"),
        (b'{"instances": {"x": [1]}}', "'instances' is an object"),
        (b'{"instances": "abc"}', "'instances' is \"abc\""),
        (b'{"instances": null}', "'instances' is null"),
        (b'{"instances": [1], "signature_name": 5}', "'signature_name' is 5"),
        (b'{"signature_name": [1], "instances": 5}', "'signature_name' is a list"),
        (b'{"instances": [1], "signature_name": null}', "'signature_name' is null"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_rejects_requests_of_another_form(body, message):
    with pytest.raises(InvalidInputError, match=message):
        parse_predict(body)


def test_signature_and_format_are_known_before_the_values_are_read():
    parsed = parse_predict(b'{"signature_name": "s", "inputs": 1}')
    assert (parsed.signature, parsed.format) == ("s", Format.COLUMN)
    assert parse_predict(b'{"instances": ["a"]}').format is Format.ROW
    assert parse_predict(b'{"instances": ["a"]}').signature == ""


@given(
    st.sampled_from([dtype for dtype in NUMERIC if dtype is not DType.DT_BOOL]).flatmap(
        lambda dtype: hnp.arrays(
            dtype.numpy,
            hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
            elements=hnp.from_dtype(dtype.numpy, allow_subnormal=True),
        )
    )
)
def test_arrays_survive_json(array):
    body = json.dumps({"instances": array.tolist()}).encode()
    dtype = DType.of(array.dtype)
    arrived = read(body, x=dtype)["x"]
    assert arrived.dtype == array.dtype
    np.testing.assert_array_equal(arrived, array)


LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.integers(-300, 300),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from([2.0**127, 3.4028235e38, 3.4028235677973366e38, 3.4028236e38, 2.0**128, -(2**63) - 1]),
    st.sampled_from([{"b64": "AA=="}, {"b64": "?"}, {"b64": 1}, {}]),
)


@given(
    st.lists(LEAF, min_size=1, max_size=4),
    st.sampled_from(sorted({*NUMERIC, DType.DT_BOOL, DType.DT_STRING})),
)
def test_an_array_is_rejected_exactly_if_one_of_its_values_is(values, dtype):
    def is_rejected(some):
        try:
            PredictBody("", Format.COLUMN, {"x": some}).read(signature(x=dtype))
        except InvalidInputError as error:
            return str(error).startswith("inputs.x[")
        return False

    # parse_body() returns a float for an integer of more than 64 bits
    values = [float(v) if type(v) is int and not -(2**63) <= v < 2**64 else v for v in values]
    assert is_rejected(values) == any(is_rejected([value]) for value in values)
