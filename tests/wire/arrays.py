"""Strategies for arrays of every dtype that can be sent."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserving.wire.dtypes import DType

NUMERIC = [
    *(
        np.dtype(f"{order}{kind}")
        for order in "<>"
        for kind in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8", "c8", "c16")
    ),
    np.dtype("i1"),
    np.dtype("u1"),
    np.dtype("?"),
    *(dtype.numpy for dtype in DType if dtype.quantized_as),
]

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def _bfloat16(array: np.ndarray) -> np.ndarray:
    return array.view(ml_dtypes.bfloat16)


def _strings(values: list[bytes | str], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


STRINGS = SHAPES.flatmap(
    lambda shape: st.lists(
        st.one_of(st.binary(max_size=9), st.text(max_size=9)),
        min_size=int(np.prod(shape)),
        max_size=int(np.prod(shape)),
    ).map(lambda values: _strings(values, shape))
)

ARRAYS = st.one_of(
    st.sampled_from(NUMERIC).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)),
    hnp.arrays(np.dtype("<u2"), SHAPES).map(_bfloat16),
    st.sampled_from(NUMERIC).flatmap(lambda dtype: hnp.arrays(dtype, (3, 4))).map(lambda array: array.T[::2]),
    STRINGS,
)


def as_received(array: np.ndarray) -> np.ndarray:
    """What must arrive: the values in native order, strings as bytes."""
    if array.dtype == object:
        encoded = [value.encode() if isinstance(value, str) else value for value in array.reshape(-1)]
        return _strings(encoded, array.shape)
    return np.array(array, array.dtype.newbyteorder("="))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal in dtype, shape and bits, NaNs included."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == object:
        return one.tolist() == other.tolist()
    return one.tobytes() == other.tobytes()
