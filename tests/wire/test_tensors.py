import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.arrays import ARRAYS, as_received, same
from tfserving.errors import InvalidInputError, ProtocolError
from tfserving.wire import messages, predict, tensors
from tfserving.wire.dtypes import DType
from tfserving.wire.limits import FillLimit
from tfserving.wire.signatures import TensorInfo


def peak_megabytes(function):
    """The largest memory that Python and numpy have allocated during a call, in MB."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def as_request(message):
    request = messages.PredictRequest()
    request.inputs["x"].CopyFrom(message)
    return predict.decode_request(request.SerializeToString()).read()


def as_response(message):
    response = messages.PredictResponse()
    response.outputs["x"].CopyFrom(message)
    return predict.decode_response(response.SerializeToString())


@given(ARRAYS, st.booleans())
def test_arrays_survive_a_round_trip(array, tensor_content):
    assert same(tensors.to_array(tensors.to_proto(array, tensor_content=tensor_content)), as_received(array))


def proto(dtype, shape, **fields):
    message = messages.TensorProto(dtype=dtype, **fields)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


@pytest.mark.parametrize(
    ("message", "values"),
    [
        (proto(DType.DT_FLOAT, [3], float_val=[1, 2]), [1.0, 2.0, 2.0]),
        (proto(DType.DT_FLOAT, [2]), [0.0, 0.0]),
        (proto(DType.DT_STRING, [3], string_val=[b"a"]), [b"a", b"a", b"a"]),
        (proto(DType.DT_STRING, [1]), [b""]),
        (proto(DType.DT_STRING, [2], tensor_content=b"\x01\x02abc"), [b"a", b"bc"]),
        (proto(DType.DT_HALF, [2], half_val=[0x3C00]), [1.0, 1.0]),
        (proto(DType.DT_COMPLEX64, [2], scomplex_val=[1, 2]), [1 + 2j, 1 + 2j]),
        (proto(DType.DT_UINT8, [2], int_val=[255]), [255, 255]),
    ],
)
def test_a_short_field_repeats_its_last_value(message, values):
    array = tensors.to_array(message)
    assert array.tolist() == values
    assert array.dtype == DType(message.dtype).numpy


@pytest.mark.parametrize(
    ("message", "values"),
    [
        (proto(DType.DT_FLOAT, [1], float_val=[1, 2]), [1.0]),
        (proto(DType.DT_INT8, [1], int_val=[1, 2]), [1]),
        (proto(DType.DT_HALF, [1], half_val=[0x3C00, 0]), [1.0]),
        (proto(DType.DT_STRING, [1], string_val=[b"a", b"b"]), [b"a"]),
        (proto(DType.DT_COMPLEX64, [1], scomplex_val=[1, 2, 3, 4]), [1 + 2j]),
        (proto(DType.DT_COMPLEX64, [2], scomplex_val=[1, 2, 3]), [1 + 2j, 1 + 2j]),
        (proto(DType.DT_COMPLEX64, [1], scomplex_val=[1]), [0j]),
        (proto(DType.DT_FLOAT, [0], float_val=[1, 2]), []),
        (proto(DType.DT_FLOAT, [0], tensor_content=b"12345678"), []),
        (proto(DType.DT_STRING, [0], tensor_content=b"abc"), []),
    ],
)
def test_ignores_values_that_the_shape_does_not_hold(message, values):
    array = tensors.to_array(message)
    assert array.tolist() == values
    assert array.dtype == DType(message.dtype).numpy


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (proto(DType.DT_FLOAT, [2], tensor_content=b"123"), "has 3 bytes for the dtype float32"),
        (proto(DType.DT_FLOAT, [-1]), "cannot be negative"),
        (proto(DType.DT_FLOAT, [2**40], float_val=[1]), "2 GiB"),
        (proto(DType.DT_FLOAT, [2**62, 0, 4]), "2 GiB"),
        (proto(DType.DT_FLOAT, [1] * 33, float_val=[1]), "33 dimensions, the limit is 32"),
        (proto(DType.DT_STRING, [1] * 33, string_val=[b"a"]), "33 dimensions"),
        (proto(DType.DT_STRING, [2], tensor_content=b"\x01"), "too short"),
        (proto(DType.DT_STRING, [1], tensor_content=b"\x05abc"), "not the sum"),
        (proto(DType.DT_RESOURCE, [1]), "dtype number 20"),
        (proto(0, [1]), "dtype number 0"),
        (proto(999, [1]), "dtype number 999"),
        (proto(DType.DT_FLOAT + 100, [1], float_val=[1]), "dtype number 101"),
    ],
)
def test_inconsistent_tensors_are_protocol_errors(message, words):
    with pytest.raises(ProtocolError, match=words):
        tensors.to_array(message)


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype.quantized_as], ids=lambda d: d.label)
def test_quantized_numbers_are_sent_as_integers(dtype):
    array = np.array([1, 2], dtype.quantized_as.numpy).view(dtype.numpy)
    sent = tensors.to_proto(array, tensor_content=False)
    assert (sent.dtype, list(sent.int_val)) == (dtype, [1, 2])
    assert tensors.to_array(sent).dtype == dtype.numpy


def test_rejects_a_tensor_without_rank():
    message = messages.TensorProto(dtype=1)
    message.tensor_shape.unknown_rank = True
    with pytest.raises(ProtocolError, match="unknown_rank"):
        tensors.to_array(message)


@pytest.mark.parametrize(
    "array", [np.array(["2020-01-01"], "M8[D]"), np.zeros(1, "f4,f4"), np.zeros(1, np.longdouble)]
)
def test_rejects_dtypes_that_tensorflow_lacks(array):
    with pytest.raises(InvalidInputError, match="no TensorFlow counterpart"):
        tensors.to_proto(array)


def test_rejects_objects_that_are_not_strings():
    with pytest.raises(InvalidInputError, match="has a dict"):
        tensors.to_proto(np.array([{}], object))


def test_text_arrays_become_bytes():
    assert tensors.to_array(tensors.to_proto(np.array(["é", "b"]))).tolist() == ["é".encode(), b"b"]


INFOS = {"x": TensorInfo("x", DType.DT_INT8, (None, 2)), "s": TensorInfo("s", DType.DT_STRING, None)}


@pytest.mark.parametrize(
    ("alias", "message", "words"),
    [
        ("z", proto(DType.DT_INT8, [2, 2], int_val=[1]), "'z' does not exist; the signature takes 'x', 's'"),
        ("x", proto(DType.DT_FLOAT, [2, 2], float_val=[1]), "is int8, the request has float32"),
        ("x", proto(DType.DT_INT8, [2**20], int_val=[1]), r"1 values for the shape \(1048576,\)"),
    ],
)
def test_rejects_tensors_that_do_not_fit_the_signature(alias, message, words):
    with pytest.raises(InvalidInputError, match=words):
        tensors.to_arrays({alias: message}, INFOS)


def test_accepts_another_rank_if_all_values_are_given():
    assert tensors.to_arrays({"x": proto(DType.DT_INT8, [2], int_val=[1, 2])}, INFOS)["x"].tolist() == [1, 2]


def test_the_bytes_that_are_filled_are_limited_per_message():
    short = {"x": proto(DType.DT_INT8, [300, 2], int_val=[7]), "s": proto(DType.DT_STRING, [50])}
    arrays = tensors.to_arrays(short, INFOS, FillLimit(1000))
    assert (arrays["x"] == 7).all()
    assert arrays["s"].tolist() == [b""] * 50
    with pytest.raises(ProtocolError, match=r"999 bytes \(--flag\), these have 1000: send all values"):
        tensors.to_arrays(short, INFOS, FillLimit(999, "--flag"))


@pytest.mark.parametrize(
    "message",
    [
        proto(DType.DT_INT8, [2**31 - 1], int_val=[1]),
        proto(DType.DT_FLOAT, [2**29 - 1]),
        proto(DType.DT_STRING, [2**28 - 1], string_val=[b"a"]),
        proto(DType.DT_STRING, [2**28 - 1], tensor_content=b"\0"),
    ],
    ids=["int8", "float32", "string", "string content"],
)
@pytest.mark.parametrize("read", [as_request, as_response])
def test_a_small_message_with_a_large_shape_takes_no_memory(message, read):
    def reject():
        with pytest.raises(ProtocolError):
            read(message)

    assert peak_megabytes(reject) < 1


@pytest.mark.parametrize(
    ("message", "megabytes"),
    [
        (proto(DType.DT_INT8, [2**20], int_val=[1] * 2**20), 10),
        (proto(DType.DT_INT64, [2**20], int64_val=[2**40] * 2**20), 16),
        (proto(DType.DT_STRING, [2**20], string_val=[b"a"] * 2**20), 16),
        (proto(DType.DT_STRING, [2**20], tensor_content=b"\0" * 2**20), 26),
    ],
    ids=["int8", "int64", "string", "string content"],
)
def test_values_take_little_more_memory_than_the_array(message, megabytes):
    assert peak_megabytes(lambda: tensors.to_array(message)) < megabytes
