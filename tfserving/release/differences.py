"""Differences between the outputs of two versions, or between outputs and what is expected of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError
from tfserving.wire.dtypes import Array, Arrays, DType


@dataclass(frozen=True)
class Tolerance:
    """How much outputs may differ.

    Attributes:
        relative, absolute: floating-point values may differ by `absolute` plus `relative` times the value of
            the second; all others must be equal.
        min_agreement: with a share from 0 to 1, an output with scores has no tolerance for its values.
            Instead, the largest score must be at the same place in at least this share of the rows.

    Raises:
        InvalidInputError: a value is out of range.
    """

    relative: float = 1e-4
    absolute: float = 1e-5
    min_agreement: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("relative", self.relative), ("absolute", self.absolute)):
            if not value >= 0:
                raise InvalidInputError(f"the {name} tolerance is {value:g}; expected 0 or more")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise InvalidInputError(f"the agreement is {self.min_agreement:g}; expected a share from 0 to 1")


@dataclass(frozen=True)
class OutputDifference:
    """The difference of one output over all samples.

    Attributes:
        name: the output.
        values: number of values that were compared.
        outside: how many of them differ by more than the tolerance.
        largest, mean: the largest and the mean absolute difference; None for strings. A number and NaN differ
            by infinity, two NaN by 0.
        agreement: the share of rows with the largest score at the same place; None for an output without
            scores, which are floating-point values with two or more in the last dimension.
        error: why the outputs cannot be compared; "" if they can.
        is_within: whether the difference is within the tolerance.
    """

    name: str
    values: int
    outside: int
    largest: float | None
    mean: float | None
    agreement: float | None
    error: str
    is_within: bool

    def describe(self) -> str:
        """The difference as the end of a sentence about the output."""
        if self.error:
            return self.error
        text = f"has {self.outside} of {self.values} values outside the tolerance"
        if self.largest is not None:
            text += f" (largest difference {self.largest:.3g})"
        if self.agreement is not None:
            text += f", and the largest score at the same place in {self.agreement:.2%} of the rows"
        return text

    def as_json(self) -> dict[str, Any]:
        """This as JSON values; infinity is the string "inf", since JSON has no such number."""
        return {
            name: "inf" if value == float("inf") else value
            for name, value in {**self.__dict__, "error": self.error or None}.items()
        }


def compare_outputs(
    first: Sequence[Mapping[str, Array]], second: Sequence[Mapping[str, Array]], tolerance: Tolerance
) -> tuple[OutputDifference, ...]:
    """The difference of each output, in the order of their names.

    Args:
        first, second: for each sample, the outputs by name.
        tolerance: how much they may differ.
    """
    names = sorted({name for outputs in (*first, *second) for name in outputs})
    return tuple(
        _compare_output(
            name,
            [outputs.get(name) for outputs in first],
            [outputs.get(name) for outputs in second],
            tolerance,
        )
        for name in names
    )


def drop_batch(outputs: Arrays, expected: Mapping[str, Array]) -> Arrays:
    """The expected outputs of a response, without a batch dimension of 1 that the expected arrays lack."""
    return {
        name: array.reshape(expected[name].shape) if array.shape == (1, *expected[name].shape) else array
        for name, array in outputs.items()
        if name in expected
    }


def _compare_output(
    name: str, first: list[Array | None], second: list[Array | None], tolerance: Tolerance
) -> OutputDifference:
    values = outside = rows = agreeing = 0
    largest, total, is_text = 0.0, 0.0, False
    for number, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        error = _find_error(number, one, other)
        if error:
            return OutputDifference(name, 0, 0, None, None, None, error, False)
        assert one is not None
        assert other is not None
        is_text = DType.of(one.dtype) is DType.DT_STRING
        differences, is_outside = _subtract(one, other, tolerance)
        values += one.size
        outside += int(np.count_nonzero(is_outside))
        if one.size:
            largest = max(largest, float(differences.max()))
            total += float(differences.sum())
        if _has_scores(one) and _has_scores(other):
            rows += one.size // one.shape[-1]
            agreeing += int(np.count_nonzero(one.argmax(axis=-1) == other.argmax(axis=-1)))
    agreement = agreeing / rows if rows else None
    if agreement is not None and tolerance.min_agreement is not None:
        is_within = agreement >= tolerance.min_agreement
    else:
        is_within = outside == 0
    return OutputDifference(
        name,
        values,
        outside,
        None if is_text else largest,
        None if is_text else total / max(values, 1),
        agreement,
        "",
        is_within,
    )


def _find_error(number: int, one: Array | None, other: Array | None) -> str:
    if one is None or other is None:
        return f"is missing in the {'first' if one is None else 'second'}"
    if one.shape != other.shape:
        return f"has shape {one.shape} and {other.shape} in sample {number}"
    if (DType.of(one.dtype) is DType.DT_STRING) != (DType.of(other.dtype) is DType.DT_STRING):
        return f"is {DType.of(one.dtype).label} in the first and {DType.of(other.dtype).label} in the second"
    return ""


def _subtract(one: Array, other: Array, tolerance: Tolerance) -> tuple[Array, Array]:
    """The absolute differences of two arrays of one shape, and which are outside the tolerance."""
    if DType.of(one.dtype) is DType.DT_STRING:
        differ = np.asarray(_as_bytes(one) != _as_bytes(other), dtype=bool)
        return differ.astype(float), differ
    one, other = _as_numbers(one), _as_numbers(other)
    exact = not (_is_inexact(one) or _is_inexact(other))
    unequal = one != other
    wide = np.complex128 if one.dtype.kind == "c" or other.dtype.kind == "c" else np.float64
    one, other = one.astype(wide), other.astype(wide)
    unequal &= ~(np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore", over="ignore"):
        differences = np.where(unequal, np.abs(one - other), 0.0)
        differences = np.where(np.isnan(differences), np.inf, differences)
        if exact:
            return differences, unequal
        limit = tolerance.absolute + tolerance.relative * np.abs(other)
    # An infinite or missing limit allows only equal values, which have no difference.
    limit = np.where(np.isfinite(limit), limit, 0.0)
    return differences, differences > limit


def _is_inexact(array: Array) -> bool:
    # bfloat16 and the like are of kind V in numpy
    return array.dtype.kind in "fcV"


def _has_scores(array: Array) -> bool:
    return array.dtype.kind in "fV" and array.dtype.names is None and array.ndim >= 1 and array.shape[-1] >= 2


def _as_numbers(array: Array) -> Array:
    held = DType.of(array.dtype).quantized_as
    return array if held is None else array.view(held.numpy)


def _as_bytes(array: Array) -> Array:
    """The strings as bytes in an object array, whatever numpy dtype they have."""
    found = np.empty(array.shape, dtype=object)
    for index, text in np.ndenumerate(array):
        found[index] = text.encode() if isinstance(text, str) else bytes(text)
    return found
