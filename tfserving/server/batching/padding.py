"""Arrays of several requests to the arrays of one batch (batching_util.cc in TensorFlow Serving 2.20)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfserving.errors import InvalidInputError
from tfserving.server.core.servable import Inputs
from tfserving.wire.dtypes import Array


def count_rows(inputs: Inputs) -> int:
    """The first dimension, which all inputs must share.

    Raises:
        InvalidInputError: an input is a scalar, or the first dimensions differ.
    """
    sizes = {}
    for name, array in inputs.items():
        if not array.ndim:
            raise InvalidInputError(
                f"input {name!r} is a scalar: with batching, every input needs a batch dimension"
            )
        sizes[name] = array.shape[0]
    if len(set(sizes.values())) > 1:
        raise InvalidInputError(f"the inputs have {sizes} rows: with batching, all need the same number")
    return next(iter(sizes.values()), 0)


def join_batch(arrays: Sequence[Array], size: int) -> Array:
    """Concatenates arrays and pads them to `size` rows with the first row of the first array.

    If the other dimensions differ, each array is padded to the largest with its own first element.

    Raises:
        InvalidInputError: an array to be padded is empty.
    """
    if len({array.shape[1:] for array in arrays}) > 1:
        shape = np.max([array.shape[1:] for array in arrays], axis=0)
        arrays = [_pad(array, shape) for array in arrays]
    missing = size - sum(len(array) for array in arrays)
    if missing:
        arrays = [*arrays, np.repeat(arrays[0][:1], missing, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _pad(array: Array, shape: Array) -> Array:
    if tuple(array.shape[1:]) == tuple(shape):
        return array
    if not array.size:
        raise InvalidInputError(
            f"an empty input of shape {array.shape} cannot be padded to {tuple(map(int, shape))}, the shape "
            "of the largest input in its batch"
        )
    padded = np.full((len(array), *shape), array.flat[0], array.dtype)
    padded[tuple(map(slice, array.shape))] = array
    return padded
