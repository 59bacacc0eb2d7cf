"""Bodies that contain one array of numbers, parsed without a Python object for each number.

Parsing 3 MB of JSON (150,000 numbers) takes 9 ms instead of 28 ms, of a request that takes 31 ms in
benchmarks/server.md. simdjson converts all numbers in one call, but does not check that the array is
rectangular; the sequence of brackets and commas shows that.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from tfserving.errors import InvalidInputError
from tfserving.server.rest.json_body import FlatArray, parse_body
from tfserving.wire.dtypes import Array
from tfserving.wire.limits import MAX_RANK

simdjson: Any
try:
    simdjson = importlib.import_module("simdjson")
except ImportError:  # no wheel for this platform: every body takes the path of small ones
    simdjson = None

# Bytes that are parsed without a break, so that other threads run in between.
_PIECE_BYTES = 1 << 22

_NUMBERS_AND_SPACE = b"0123456789+-.eE \n\r\t"


@dataclass(frozen=True)
class NumberArray:
    """A rectangular array of JSON numbers.

    Attributes:
        shape: its shape; at least one dimension.
        values: the numbers in order: int64 or uint64 if all of them are integers that fit, else float64.
        text: the array as JSON.
    """

    shape: tuple[int, ...]
    values: Array
    text: memoryview

    def as_type(self, code: str) -> Array | None:
        """The numbers as a flat array of a type code of the struct module; None if one does not fit.

        A number with a decimal point or exponent does not fit an integer type. Numbers beyond float32 become
        infinite.
        """
        values = self.values
        if code in "fd":
            # through float64, as Python's numbers are converted
            with np.errstate(over="ignore"):
                return values.astype("<f8", copy=False).astype(f"<{code}", copy=False)
        if values.dtype.kind == "f":
            return None
        converted = values.astype(f"<{code}", copy=False)
        return converted if (converted == values).all() else None

    def pieces(self) -> Iterator[FlatArray]:
        """The numbers as Python values, a piece at a time, each as a flat array without the shape."""
        for text in _split(self.text):
            level = orjson.loads(text)
            for _ in self.shape[1:]:
                level = list(itertools.chain.from_iterable(level))
            yield FlatArray((len(level),), level, set(map(type, level)))


# Types of simdjson's buffers, in the order to try: a number with a decimal point is neither "i" nor "u".
_BUFFER_TYPES = {"i": "<i8", "u": "<u8", "d": "<f8"}


def loads_numbers(body: bytes) -> dict[str, Any] | None:
    """Parse a JSON object with a `NumberArray` in place of its array; None for any other body, valid or not.

    The array is the value of a key of the object, or of a key of its object "inputs".
    """
    start, end = body.find(b"["), body.rfind(b"]") + 1
    head, tail = body[:start], body[end:]
    if simdjson is None or not 0 < start < end or b"null" in head or b"null" in tail:
        return None
    # most arrays of other values differ in the first value, without a scan of the whole body
    if body[start : start + 64].lstrip(b"[ \n\r\t")[:1].strip(b"-0123456789"):
        return None
    before, after = (len(part.translate(None, _NUMBERS_AND_SPACE)) for part in (head, tail))
    punctuation = body.translate(None, _NUMBERS_AND_SPACE)
    shape = _parse_shape(punctuation[before : len(punctuation) - after])
    if shape is None:
        return None
    try:
        # null can stand wherever the array does, and there is no other null: it marks the place of the array
        value = parse_body(head + b"null" + tail)
        inputs = value.get("inputs") if isinstance(value, dict) else None
        parent = inputs if isinstance(inputs, dict) else value
        if not isinstance(parent, dict):
            return None
        key = next(key for key, child in parent.items() if child is None)
        text = memoryview(body)[start:end]
        values = _parse_numbers(text, math.prod(shape))
    except (ValueError, StopIteration, InvalidInputError):
        return None
    parent[key] = NumberArray(shape, values, text)
    return dict(value)


def _parse_numbers(text: memoryview, count: int) -> Array:
    """The `count` values of a `NumberArray`.

    Raises:
        ValueError: the text is not JSON, contains other values than numbers, or another number of values.
    """
    values: Array = np.empty(0, np.int64)
    size = 0
    for piece in _split(text):
        numbers = _parse_piece(piece)
        if size == 0 and numbers.size == count:
            return numbers
        if not size:
            values = np.empty(count, numbers.dtype)
        values = _with_dtype_for(numbers, values, size)
        if size + numbers.size > count:
            break
        values[size : size + numbers.size] = numbers
        size += numbers.size
    # a list of one number and an empty list have the same punctuation
    if size != count:
        raise ValueError("the shape has another number of values")
    return values


def _with_dtype_for(numbers: Array, values: Array, size: int) -> Array:
    """The array with a dtype that holds its first `size` values and the numbers as well."""
    kinds = {numbers.dtype.kind, values.dtype.kind}
    if len(kinds) == 1 or (values.dtype.kind == "f"):
        return values
    signed = numbers if numbers.dtype.kind == "i" else values[:size]
    if kinds == {"i", "u"} and (not signed.size or signed.min() >= 0):
        return values.astype("<u8", copy=False)
    return values.astype("<f8")


def _split(text: memoryview) -> Iterator[bytes | memoryview]:
    """The text of an array as arrays of about _PIECE_BYTES that have its elements in order.

    Each has the brackets that are open at its ends.
    """
    if len(text) <= _PIECE_BYTES:
        yield text
        return
    start = depth = 0
    while True:
        piece = bytes(text[start : start + _PIECE_BYTES])
        is_last = start + len(piece) == len(text)
        # an element is shorter than a piece, or its text is not a number
        end = len(piece) if is_last else piece.rfind(b",")
        if end < 0:
            raise ValueError("not only numbers")
        piece = piece[:end]
        opened = b"[" * depth
        depth += piece.count(b"[") - piece.count(b"]")
        yield opened + piece + b"]" * depth
        if is_last:
            return
        start += end + 1


def _parse_piece(text: bytes | memoryview) -> Array:
    try:
        array = simdjson.Parser().parse(text)
        for code, dtype in _BUFFER_TYPES.items():
            with contextlib.suppress(TypeError, ValueError):
                return np.frombuffer(array.as_buffer(of_type=code), dtype)
    except RuntimeError as error:  # what simdjson raises for an integer of more than 64 bits
        raise ValueError(str(error)) from error
    raise ValueError("not only numbers")


def _parse_shape(punctuation: bytes) -> tuple[int, ...] | None:
    """The shape of an array of which only brackets and commas are left; None if it is not rectangular."""
    rank = len(punctuation) - len(punctuation.lstrip(b"["))
    if not 0 < rank <= MAX_RANK:
        return None
    shape: list[int] = []
    inner = b""
    for level in range(1, rank + 1):
        end = punctuation.find(b"]" * level) + level
        block = punctuation[rank - level : end]
        count, rest = divmod(len(block) - 1, len(inner) + 1)
        if rest or block != b"[" + (inner + b",") * (count - 1) + inner + b"]":
            return None
        shape.append(count)
        inner = block
    return tuple(reversed(shape)) if inner == punctuation else None
