import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserving.client.inputs import arrays_for, check_outputs, choose_signature, order_outputs
from tfserving.errors import InvalidInputError, NotFoundError, ProtocolError
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import Signature, TensorInfo


def signature(dtype=DType.DT_FLOAT, shape=None, defaults=None):
    return Signature("s", "m", {"x": TensorInfo("x", dtype, shape)}, {}, defaults or {})


def one(value, dtype, shape=None):
    return arrays_for(signature(dtype, shape), value)["x"]


NUMBERS = [
    DType.DT_FLOAT,
    DType.DT_DOUBLE,
    DType.DT_HALF,
    DType.DT_BFLOAT16,
    DType.DT_INT8,
    DType.DT_INT16,
    DType.DT_INT32,
    DType.DT_INT64,
    DType.DT_UINT8,
    DType.DT_UINT16,
    DType.DT_UINT32,
    DType.DT_UINT64,
    DType.DT_BOOL,
    DType.DT_COMPLEX64,
    DType.DT_COMPLEX128,
]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_python_values_take_the_dtype_of_the_signature(dtype):
    assert one([[0, 1], [1, 0]], dtype).dtype == dtype.numpy
    assert one([[0, 1], [1, 0]], dtype).astype(complex).real.tolist() == [[0, 1], [1, 0]]
    assert one(1, dtype).shape == ()
    assert (one([], dtype).dtype, one([], dtype).shape) == (dtype.numpy, (0,))
    assert one([True, False], dtype).astype(complex).real.tolist() == [1, 0]
    assert one([np.float64(1), np.int8(0)], dtype).astype(complex).real.tolist() == [1, 0]
    assert one(np.float64(1), dtype).dtype == dtype.numpy, "a numpy scalar is a number"


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype.quantized_as], ids=lambda d: d.label)
def test_quantized_inputs_accept_integers_that_they_can_hold(dtype):
    held = dtype.quantized_as.numpy
    quantized = np.array([1, 2], held).view(dtype.numpy)
    for value in ([1, 2], np.array([1, 2], held), quantized):
        found = one(value, dtype)
        assert (found.dtype, found.view(held).tolist()) == (dtype.numpy, [1, 2])
    for value in ([2**40], [1.5], np.array([1.0])):
        with pytest.raises(InvalidInputError):
            one(value, dtype)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1.5, DType.DT_INT32),
        ([1, 2.5], DType.DT_INT64),
        (300, DType.DT_UINT8),
        (-1, DType.DT_UINT64),
        (2**63, DType.DT_INT64),
        (2**64, DType.DT_UINT64),
        (float("nan"), DType.DT_INT32),
        (float("inf"), DType.DT_INT32),
        (1e30, DType.DT_INT64),
        (1e39, DType.DT_FLOAT),
        (70000, DType.DT_HALF),
        (2, DType.DT_BOOL),
        (0.5, DType.DT_BOOL),
        (1j, DType.DT_FLOAT),
        ("1.5", DType.DT_FLOAT),
        (b"1", DType.DT_INT32),
        (None, DType.DT_FLOAT),
        ([1, None], DType.DT_FLOAT),
        ([[1], [1, 2]], DType.DT_FLOAT),
        ({"a": 1}, DType.DT_FLOAT),
        (bytearray(b"1"), DType.DT_INT32),
        ([memoryview(b"1")], DType.DT_FLOAT),
        (1, DType.DT_STRING),
        ([b"a", 1], DType.DT_STRING),
        (None, DType.DT_STRING),
        (object(), DType.DT_FLOAT),
        (np.datetime64("2020-01-01"), DType.DT_INT64),
    ],
)
def test_rejects_values_that_the_dtype_cannot_hold(value, dtype):
    with pytest.raises(
        InvalidInputError, match=f"input 'x' of signature 's': expected {dtype.label}"
    ) as caught:
        arrays_for(signature(dtype), {"x": value})
    assert "given" in str(caught.value)


@given(st.integers(-(2**70), 2**70), st.sampled_from(["int8", "int64", "uint8", "uint64"]))
def test_accepts_an_integer_only_if_the_dtype_can_hold_it(value, name):
    limits = np.iinfo(name)
    dtype = DType.of(np.dtype(name))
    if limits.min <= value <= limits.max:
        assert int(one([value, 0], dtype)[0]) == value
    else:
        with pytest.raises(InvalidInputError):
            one([value, 0], dtype)


def test_accepts_nan_infinity_and_negative_zero():
    got = one([float("nan"), float("inf"), -float("inf"), -0.0], DType.DT_FLOAT)
    assert np.isnan(got[0])
    assert got[1:].tolist() == [float("inf"), -float("inf"), 0.0]
    assert np.signbit(got[3])


@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(max_side=3)), st.sampled_from(NUMBERS))
def test_an_array_is_passed_unchanged_or_rejected(array, dtype):
    try:
        given_dtype = DType.of(array.dtype)
    except InvalidInputError:
        given_dtype = None
    if given_dtype is dtype:
        assert one(array, dtype) is array
    else:
        with pytest.raises(InvalidInputError, match="array"):
            one(array, dtype)


def test_the_error_for_an_array_has_its_dtype_and_the_conversion():
    with pytest.raises(InvalidInputError, match=r"float64 array; convert it: array.astype\('float32'\)"):
        one(np.zeros(2), DType.DT_FLOAT)
    with pytest.raises(InvalidInputError, match="bfloat16 array"):
        one(np.zeros(2, ml_dtypes.bfloat16), DType.DT_FLOAT)


def test_accepts_str_bytes_and_arrays_of_both():
    assert one("ä", DType.DT_STRING).tolist() == "ä"
    assert one([["a", b"b"]], DType.DT_STRING).shape == (1, 2)
    for array in (np.array(["a"]), np.array([b"a"]), np.array(["a"], object)):
        assert one(array, DType.DT_STRING) is array
    with pytest.raises(InvalidInputError, match="int 1; pass str or bytes"):
        one(np.array(["a", 1], object), DType.DT_STRING)


@pytest.mark.parametrize(
    "value",
    [
        [[bytearray(b"ab"), memoryview(b"cd")]],
        [(bytearray(b"ab"), "cd")],
        np.array([["ab", bytearray(b"cd")]], object),
    ],
)
def test_bytearray_and_memoryview_are_bytes(value):
    got = one(value, DType.DT_STRING)
    assert [text if isinstance(text, bytes) else text.encode() for text in got[0]] == [b"ab", b"cd"]
    assert got.shape == (1, 2)


def test_empty_and_single_bytearrays_are_bytes():
    assert one([bytearray()], DType.DT_STRING).tolist() == [b""]
    assert one(memoryview(b"abcd")[::2], DType.DT_STRING).tolist() == b"ac"


def test_accepts_objects_with_array_interface():
    class Series:
        def __array__(self, dtype=None, copy=None):
            return np.zeros(3, np.float32)

    assert one(Series(), DType.DT_FLOAT).shape == (3,)
    with pytest.raises(InvalidInputError, match="a float32 array"):
        one(Series(), DType.DT_INT32)


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        ((None, 2), (5, 2), (5, 3)),
        ((None, None), (0, 0), (3,)),
        ((), (), (1,)),
        ((3,), (3,), (4,)),
        (None, (1, 2, 3), None),
    ],
)
def test_accepts_only_shapes_that_fit_the_signature(shape, good, bad):
    assert one(np.zeros(good, np.float32), DType.DT_FLOAT, shape).shape == good
    if bad is not None:
        with pytest.raises(InvalidInputError, match="given shape"):
            one(np.zeros(bad, np.float32), DType.DT_FLOAT, shape)


def test_the_error_for_a_missing_batch_dimension_has_a_hint():
    with pytest.raises(InvalidInputError, match="the first dimension is the batch"):
        one(np.zeros((28, 28), np.float32), DType.DT_FLOAT, (None, 28, 28))


TWO = Signature(
    "two",
    "m",
    {"a": TensorInfo("a", DType.DT_FLOAT, None), "b": TensorInfo("b", DType.DT_INT32, None)},
    {"y": TensorInfo("y", DType.DT_FLOAT, None)},
)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([1], "has 2 inputs, 'a', 'b': pass a dict"),
        ({"a": 1}, "needs input 'b', which is missing"),
        ({"a": 1, "b": 2, "c": 3}, "has no input 'c'; it takes: 'a', 'b'"),
        ({"a": 1, 3: 2}, "has no input 3"),
    ],
)
def test_rejects_unknown_and_missing_names(inputs, words):
    with pytest.raises(InvalidInputError, match=words):
        arrays_for(TWO, inputs)


def test_inputs_with_a_default_are_optional():
    with_default = Signature("two", "m", TWO.inputs, {}, {"b": np.array(1, np.int32)})
    assert arrays_for(with_default, {"a": 1}).keys() == {"a"}
    assert arrays_for(with_default, 1).keys() == {"a"}
    assert arrays_for(with_default, {"a": 1, "b": 2}).keys() == {"a", "b"}


def test_integers_that_numpy_would_round_are_exact():
    large = [1, 2**63 + 1]
    assert one(large, DType.DT_UINT64).tolist() == large
    assert one([large], DType.DT_UINT64).tolist() == [large]
    for bad in ([-1, 2**63 + 1], [1, 2**64], [1, 2.0**63 + 0.5e4, 1.5]):
        with pytest.raises(InvalidInputError):
            one(bad, DType.DT_UINT64)
    with pytest.raises(InvalidInputError):
        one(large, DType.DT_INT64)


def test_a_signature_without_inputs_accepts_an_empty_dict():
    assert arrays_for(Signature("none", "m", {}, {}), {}) == {}


def test_choosing_a_signature_and_outputs_rejects_unknown_names():
    assert choose_signature({"serving_default": TWO}, "") is TWO
    with pytest.raises(NotFoundError, match="no signature 'x'; it has: 'serving_default'"):
        choose_signature({"serving_default": TWO}, "x")
    with pytest.raises(NotFoundError, match="it has: none"):
        choose_signature({}, "")
    check_outputs(TWO, ["y"])
    with pytest.raises(InvalidInputError, match="no output 'z'; it has: 'y'"):
        check_outputs(TWO, ["y", "z"])


def test_outputs_are_in_the_order_of_the_signature():
    one, two = np.zeros(1), np.ones(1)
    assert list(order_outputs({"b": one, "a": two}, ("a", "b"))) == ["a", "b"]
    assert list(order_outputs({"new": one, "b": one, "a": two}, ("a", "b"))) == ["a", "b", "new"]
    with pytest.raises(ProtocolError, match="lacks output 'c'; it has: 'a'"):
        order_outputs({"a": one}, ("c",))
    with pytest.raises(ProtocolError, match="lacks output 'c'; it has: none"):
        order_outputs({}, ("a", "c")[1:])
