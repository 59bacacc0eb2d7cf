"""Samples matched to signatures, and random ones. No TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.conftest import signature
from tfserving.errors import ExportError, InvalidInputError
from tfserving.export.samples import match_samples, random_samples, resolve_shape
from tfserving.wire.dtypes import DType
from tfserving.wire.predict import decode_request
from tfserving.wire.signatures import Signature, TensorInfo

FLOAT = DType.DT_FLOAT


def infos(*names, shape=(None,)):
    return {name: TensorInfo(name, FLOAT, shape, f"{name}:0") for name in names}


def signatures(*names, inputs=("x",), outputs=("y",), defaults=()):
    optional = {name: np.zeros((), np.float32) for name in defaults}
    return {name: Signature(name, "", infos(*inputs), infos(*outputs), optional) for name in names}


class TestMatchSamples:
    def test_splits_arrays_into_requests_and_expected_outputs(self):
        samples = match_samples(
            signatures("serving_default"), {"x": np.array([1.0, 2.0]), "y": np.array([3.0, 4.0])}
        )
        assert samples.signature == "serving_default"
        assert [inputs["x"].tolist() for inputs in samples.inputs] == [[1.0], [2.0]]
        assert [expected["y"].tolist() for expected in samples.expected] == [3.0, 4.0]
        calls = [decode_request(request) for request in samples.encode_requests("m")]
        assert [(call.spec.name, call.read()["x"].tolist()) for call in calls] == [("m", [1.0]), ("m", [2.0])]

    def test_a_name_of_an_input_and_an_output_is_the_input_unless_it_has_a_prefix(self):
        given = signatures("serving_default", outputs=("x",))
        assert match_samples(given, {"x": np.ones(1)}).expected == ()
        samples = match_samples(given, {"x": np.ones(1), "outputs/x": np.zeros(1)})
        assert samples.inputs[0]["x"].tolist() == [1.0]
        assert samples.expected[0]["x"].tolist() == 0.0

    def test_optional_inputs_may_be_missing(self):
        given = signatures("serving_default", inputs=("x", "k"), defaults=("k",))
        assert list(match_samples(given, {"x": np.ones(1)}).inputs[0]) == ["x"]
        with pytest.raises(InvalidInputError, match="no signature has the inputs"):
            match_samples(given, {"k": np.ones(1)})

    def test_takes_the_named_signature(self):
        given = signatures("a", "serving_default")
        assert match_samples(given, {"x": np.ones(1)}).signature == "serving_default"
        assert match_samples(given, {"x": np.ones(1)}, signature="a").signature == "a"
        with pytest.raises(InvalidInputError, match="no signature 'b'; it has a, serving_default"):
            match_samples(given, {"x": np.ones(1)}, signature="b")

    def test_rejects_outputs_that_the_signature_lacks(self):
        with pytest.raises(InvalidInputError, match="no signature has the inputs of the samples, x, z"):
            match_samples(signatures("serving_default"), {"x": np.ones(1), "z": np.ones(1)})


class TestRandomSamples:
    def test_generates_the_same_samples_for_the_same_seed(self):
        given = {"serving_default": signature("serving_default", {"x": (FLOAT, (None, 4))})}
        first, second = (random_samples(given, 3).inputs for _ in range(2))
        assert [inputs["x"].shape for inputs in first] == [(1, 4)] * 3
        assert all(np.array_equal(one["x"], other["x"]) for one, other in zip(first, second, strict=True))
        assert not np.array_equal(first[0]["x"], first[1]["x"])
        assert not np.array_equal(first[0]["x"], random_samples(given, 1, seed=1).inputs[0]["x"])

    @pytest.mark.parametrize(
        ("dtype", "largest"),
        [
            (DType.DT_UINT8, 255),
            (DType.DT_INT64, 1),
            (DType.DT_BOOL, 1),
            (DType.DT_BFLOAT16, 1),
            (DType.DT_COMPLEX64, 1),
            (DType.DT_QINT8, 0),
        ],
    )
    def test_generates_each_dtype(self, dtype, largest):
        given = {"serving_default": signature("serving_default", {"x": (dtype, (200,))})}
        array = random_samples(given, 1).inputs[0]["x"]
        assert DType.of(array.dtype) is dtype
        numbers = array.view(dtype.quantized_as.numpy) if dtype.quantized_as else array
        assert numbers.astype(complex).real.max() <= largest

    def test_prefers_the_default_signature_and_skips_those_that_cannot_be_generated(self):
        text = signature("serving_default", {"s": (DType.DT_STRING, (None,))})
        numbers = signature("numbers", {"x": (FLOAT, (None,))})
        assert random_samples({"numbers": numbers, "serving_default": text}, 1).signature == "numbers"
        with pytest.raises(ExportError, match="give samples in an"):
            random_samples({"serving_default": text}, 1)
        with pytest.raises(InvalidInputError, match="0 samples are too few"):
            random_samples({"numbers": numbers}, 0)

    def test_takes_shapes(self):
        given = {"serving_default": signature("serving_default", {"x": (FLOAT, (None, None, 3))})}
        assert random_samples(given, 1, shapes={"x": (7, 3)}).inputs[0]["x"].shape == (1, 7, 3)
        with pytest.raises(InvalidInputError, match="no input 'z' to set the shape of; expected x"):
            random_samples(given, 1, shapes={"z": (7, 3)})


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((None, None, 3), None, (8, 1, 3)),
        ((None, None, 3), (5, 3), (8, 5, 3)),
        ((2, None), (2, 6), (2, 6)),
        ((), (), ()),
    ],
)
def test_resolve_shape_fills_in_the_batch_size_and_free_dimensions(shape, given, expected):
    info = TensorInfo("x", FLOAT, shape, "x:0")
    assert resolve_shape(info, 8, {} if given is None else {"x": given}) == expected


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        ((None, None, 3), (8, 5, 3), r"shape 8x5x3 does not fit input 'x'; expected \?x3, without the batch"),
        ((2, None), (3, 4), r"shape 3x4 does not fit input 'x'; expected 2x\?$"),
    ],
)
def test_resolve_shape_rejects_a_shape_that_does_not_fit(shape, given, message):
    with pytest.raises(InvalidInputError, match=message):
        resolve_shape(TensorInfo("x", FLOAT, shape, "x:0"), 8, {"x": given})
