"""Differences between outputs. No TensorFlow."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tfserving.errors import InvalidInputError
from tfserving.release.differences import Tolerance, compare_outputs, drop_batch
from tfserving.wire.dtypes import DType


def compare(one, other, **tolerance):
    (difference,) = compare_outputs(
        [{"y": np.asarray(one)}], [{"y": np.asarray(other)}], Tolerance(**tolerance)
    )
    return difference


def test_reports_the_largest_and_the_mean_difference_over_all_samples():
    first = [{"y": np.array([[1.0, 2.0]])}, {"y": np.array([[3.0, 4.0]])}]
    second = [{"y": np.array([[1.0, 2.5]])}, {"y": np.array([[2.0, 4.0]])}]
    (difference,) = compare_outputs(first, second, Tolerance())
    assert (difference.values, difference.outside) == (4, 2)
    assert (difference.largest, difference.mean) == (1.0, 0.375)
    assert not difference.is_within
    assert difference.describe() == (
        "has 2 of 4 values outside the tolerance (largest difference 1), "
        "and the largest score at the same place in 100.00% of the rows"
    )


@pytest.mark.parametrize(
    ("one", "other", "is_within"),
    [
        (1.0, 1.0 + 1e-6, True),
        (1.0, 1.001, False),
        (1e6, 1e6 + 50, True),
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (1e30, math.inf, False),
        (math.nan, 0.0, False),
        (2**53, 2**53 + 1, False),
        (np.float32(0.1), 0.1, True),
        (True, False, False),
        (np.complex64(1j), np.complex64(1j + 1e-7), True),
        (np.complex64(1j), np.complex64(-1j), False),
        ("é", "é".encode(), True),
        (b"a\0", b"a", False),
        (np.array([], np.float32), np.array([], np.float32), True),
    ],
)
def test_floating_point_values_may_differ_within_the_tolerance_and_others_must_be_equal(
    one, other, is_within
):
    if isinstance(one, bytes):
        one, other = np.array(one, object), np.array(other, object)
    assert compare(one, other).is_within is is_within
    assert compare(other, one).is_within is is_within


def test_tolerances_are_relative_to_the_second_and_absolute():
    assert compare(1.1, 1.0, relative=0.2, absolute=0).is_within
    assert not compare(1.1, 1.0, relative=0.0, absolute=0.05).is_within
    assert compare(1.1, 1.0, relative=0.0, absolute=0.15).is_within


@pytest.mark.parametrize("dtype", [DType.DT_BFLOAT16, DType.DT_HALF, DType.DT_QINT8, DType.DT_UINT64])
def test_compares_each_kind_of_number(dtype):
    ones = np.ones(3, DType.DT_INT8.numpy)
    array = ones.view(dtype.numpy) if dtype.quantized_as else ones.astype(dtype.numpy)
    assert compare(array, array.copy()).largest == 0.0
    assert compare(array, np.zeros(3, dtype.numpy)).largest == 1.0


def test_a_number_and_nan_differ_by_infinity_which_json_has_as_text():
    difference = compare([math.nan, 1.0], [0.0, 1.0])
    assert (difference.largest, difference.outside) == (math.inf, 1)
    assert json.loads(json.dumps(difference.as_json(), allow_nan=False))["largest"] == "inf"


def test_strings_have_no_largest_difference():
    difference = compare(np.array(["a", "b"]), np.array([b"a", b"c"]))
    assert (difference.largest, difference.mean, difference.outside) == (None, None, 1)


def test_counts_rows_with_the_largest_score_at_the_same_place():
    first, second = [[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]], [[0.2, 0.8], [0.1, 0.9], [0.3, 0.7]]
    assert compare(first, second).agreement == pytest.approx(2 / 3)
    assert not compare(first, second).is_within
    assert compare(first, second, min_agreement=0.6).is_within
    assert not compare(first, second, min_agreement=0.7).is_within


@pytest.mark.parametrize("output", [[1, 2], [[0.5], [0.6]], 0.5, ["a", "b"]])
def test_outputs_without_scores_have_no_agreement_and_keep_their_tolerance(output):
    assert compare(output, output).agreement is None
    assert compare(output, output, min_agreement=1.0).is_within
    assert not compare([[0.5], [0.6]], [[0.5], [0.7]], min_agreement=0.0).is_within


@pytest.mark.parametrize(
    ("one", "other", "error"),
    [
        ({"y": [1.0]}, {"y": [1.0, 2.0]}, "has shape (1,) and (2,) in sample 1"),
        ({"y": [1.0]}, {"y": ["a"]}, "is float64 in the first and string in the second"),
        ({}, {"y": [1.0]}, "is missing in the first"),
        ({"y": [1.0]}, {}, "is missing in the second"),
    ],
)
def test_reports_outputs_that_cannot_be_compared(one, other, error):
    first, second = ({name: np.array(value) for name, value in each.items()} for each in (one, other))
    (difference,) = compare_outputs([first], [second], Tolerance())
    assert (difference.name, difference.error, difference.is_within) == ("y", error, False)


def test_drop_batch_keeps_expected_outputs_and_removes_a_dimension_that_they_lack():
    outputs = {"a": np.ones((1, 3)), "b": np.ones((1, 3)), "c": np.ones(1)}
    dropped = drop_batch(outputs, {"a": np.ones(3), "b": np.ones((1, 3))})
    assert {name: array.shape for name, array in dropped.items()} == {"a": (3,), "b": (1, 3)}


@pytest.mark.parametrize(
    "tolerance",
    [{"relative": -1.0}, {"absolute": math.nan}, {"min_agreement": 1.5}, {"min_agreement": math.nan}],
)
def test_rejects_tolerances_out_of_range(tolerance):
    with pytest.raises(InvalidInputError, match="expected"):
        Tolerance(**tolerance)
