"""Rows joined to the inputs of one request, and the outputs of a response as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfserving.client.types import RowResult
from tfserving.errors import InvalidInputError, UnsupportedError
from tfserving.wire.dtypes import Arrays


def join_rows(rows: Sequence[Any]) -> Any:
    """The inputs of a request with these rows as its batch.

    Args:
        rows: for each row a mapping from the names of the inputs to values, or the value of the only input.

    Raises:
        InvalidInputError: the rows have different names, or arrays of different shapes.
    """
    first = rows[0]
    if not isinstance(first, Mapping):
        return _join_values(rows)
    try:
        if any(row.keys() != first.keys() for row in rows):
            raise InvalidInputError("the rows of a request have different inputs; give each row the same")
    except AttributeError as error:
        raise InvalidInputError("only some of the rows are dicts; pass all rows in the same form") from error
    return {name: _join_values([row[name] for row in rows]) for name in first}


def _join_values(values: Sequence[Any]) -> Any:
    # numpy's scalars count as Python values, as in infer
    if not all(hasattr(value, "__array__") and not isinstance(value, np.generic) for value in values):
        return list(values)
    try:
        return np.stack([np.asarray(value) for value in values])
    except ValueError as error:
        shapes = sorted({np.shape(value) for value in values})
        raise InvalidInputError(
            f"the rows of a request have the shapes {shapes[0]} and {shapes[1]}; give them one shape"
        ) from error


def split_outputs(outputs: Arrays, first: int, count: int) -> list[RowResult]:
    """The outputs of a request as the results of its rows.

    Args:
        outputs: arrays whose first dimension is the batch. The arrays of the rows are views of them.
        first: number of the first row.
        count: number of rows in the request.

    Raises:
        UnsupportedError: an output has another number of rows.
    """
    for name, array in outputs.items():
        if array.shape[:1] != (count,):
            raise UnsupportedError(
                f"output {name!r} has the shape {array.shape} for a request of {count} rows: "
                "its first dimension is not the batch; omit it with outputs=, or call infer"
            )
    return [
        RowResult(first + row, {name: array[row, ...] for name, array in outputs.items()})
        for row in range(count)
    ]
