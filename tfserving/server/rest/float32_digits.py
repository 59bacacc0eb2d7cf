"""The decimal digits of float32 numbers in responses."""

from __future__ import annotations

import struct

import numpy as np

from tfserving.wire.dtypes import Array

# Up to this size, numbers are rounded one by one: numpy takes as long for a single one.
_SMALL_SIZE = 16
# Numbers that numpy rounds at a time. Arrays of this size fit the cache: 150,000 numbers take 2.6 ms, and
# 6.4 ms as one block.
_BLOCK_SIZE = 8192
# The range in which rounding takes a power of ten from 0 to 22, which float64 represents exactly.
_LOWEST, _HIGHEST = 1e-14, 1e9
_POWERS = np.array([10.0**exponent for exponent in range(23)])


def round_to_digits(array: Array) -> Array:
    """The float64 numbers whose shortest decimal form is what tensorflow_model_server writes for an array.

    It writes six significant digits if they identify the float32 number, else nine (WriteDecimal in
    json_tensor.cc).

    Args:
        array: float32 numbers; NaN and infinities stay as they are.
    """
    flat = array.reshape(-1)
    if flat.size <= _SMALL_SIZE:
        rounded = np.array(list(map(_round, flat.tolist())), np.float64)
    else:
        rounded = np.empty(flat.size, np.float64)
        for start in range(0, flat.size, _BLOCK_SIZE):
            block = slice(start, start + _BLOCK_SIZE)
            rounded[block] = _round_block(flat[block])
    return rounded.reshape(array.shape)


def _round_block(array: Array) -> Array:
    # signaling NaNs are invalid, and infinities overflow
    with np.errstate(over="ignore", invalid="ignore"):
        values = array.astype(np.float64)
        magnitudes = np.abs(values)
        usual = (magnitudes >= _LOWEST) & (magnitudes < _HIGHEST)
        exponents = np.floor(np.log10(np.where(usual, magnitudes, 1))).astype(np.intp)
        scales = _POWERS[8 - exponents]
        scaled = values * scales
        integers = np.rint(scaled)
        six_digits = np.rint(integers / 1000) * 1000 / scales
        identified = six_digits.astype(np.float32) == array
        rounded = np.where(identified, six_digits, integers / scales)
        # near a half, the error of the product can decide the direction
        others = (np.abs(scaled - integers) > 0.4999999) | (~usual & (magnitudes > 0))
    rounded[others] = [_round(value) for value in values[others].tolist()]
    return rounded


def _round(value: float) -> float:
    six_digits = float(f"{value:.6g}")
    (nearest,) = _FLOAT32.unpack(_FLOAT32.pack(six_digits))
    return six_digits if nearest == value else float(f"{value:.9g}")


_FLOAT32 = struct.Struct("f")
