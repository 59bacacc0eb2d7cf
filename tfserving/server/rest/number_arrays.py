"""Large requests: a body whose lists are one array of numbers, read without a Python object for each number.

simdjson parses such a text in a third of the time that orjson needs and converts all numbers at once. What it
does not tell, whether all lists of one level are of one length, shows in the order of brackets and commas.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from tfserving.server.rest.json_body import Leaves, flatten
from tfserving.wire.limits import MAX_RANK

simdjson: Any
try:
    simdjson = importlib.import_module("simdjson")
except ImportError:  # no wheel for this machine: every body is read like a small one
    simdjson = None

_NUMBERS_AND_SPACE = b"0123456789+-.eE \n\r\t"


@dataclass(frozen=True)
class Numbers:
    """A rectangular array of JSON numbers, more than one.

    Attributes:
        shape: its shape, of one dimension or more.
        values: the numbers in order: int64 or uint64 if all of them are integers that fit, else float64.
        text: the array in JSON.
    """

    shape: tuple[int, ...]
    values: np.ndarray[Any, Any]
    text: memoryview

    def packed(self, code: str) -> np.ndarray[Any, Any] | None:
        """The numbers as a flat array of a type of the struct module, None if it cannot hold one of them.

        Integers hold no number that is written with a point or exponent, float32 none that is too large.
        """
        values = self.values
        if code in "fd":
            # by way of float64, as from Python values
            values = values.astype("<f8", copy=False)
        elif values.dtype.kind == "f":
            return None
        with np.errstate(over="ignore"):
            narrow = values.astype(f"<{code}", copy=False)
        fits = np.isfinite(narrow) if code in "fd" else narrow == values
        return narrow if fits.all() else None

    def leaves(self) -> Leaves:
        """The numbers as Python values."""
        return flatten(orjson.loads(self.text), str)


# Kinds of simdjson's buffers, in the order in which they are tried: a number with a point is no "i" or "u".
_BUFFERS = {"i": "<i8", "u": "<u8", "d": "<f8"}

# A parser has several times the memory of the largest text that it read. Those for usual sizes are kept: that
# memory comes from the system page by page, for 3 MB with 600 faults and a millisecond.
_parsers: list[Any] = []
_KEPT_PARSERS = 2
_KEPT_BYTES = 1 << 23


def loads_numbers(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a body, `Numbers` in place of its array; None for any other body, good or bad.

    The array is the value of a key of the object, or of a key of the object "inputs".
    """
    start, end = body.find(b"["), body.rfind(b"]") + 1
    head, tail = body[:start], body[end:]
    if simdjson is None or not 0 < start < end or b"null" in head or b"null" in tail:
        return None
    # what is no number shows soon, most times, and need not be looked at as a whole
    if body[start : start + 64].lstrip(b"[ \n\r\t")[:1].strip(b"-0123456789"):
        return None
    before, after = (len(part.translate(None, _NUMBERS_AND_SPACE)) for part in (head, tail))
    marks = body.translate(None, _NUMBERS_AND_SPACE)
    shape = _shape(marks[before : len(marks) - after])
    if shape is None:
        return None
    try:
        # null is a value wherever the array was one; there is no other null, so it also says where that was
        value = orjson.loads(head + b"null" + tail)
        inputs = value.get("inputs") if isinstance(value, dict) else None
        holder = inputs if isinstance(inputs, dict) else value
        if not isinstance(holder, dict):
            return None
        key = next(key for key, held in holder.items() if held is None)
        text = memoryview(body)[start:end]
        numbers = Numbers(shape, _values(text), text)
    except (ValueError, StopIteration):
        return None
    # a list of one number and an empty list have the same marks
    if numbers.values.size != math.prod(shape):
        return None
    holder[key] = numbers
    return dict(value)


def _values(text: memoryview) -> np.ndarray[Any, Any]:
    """The numbers of an array in JSON, as in `Numbers`.

    Raises:
        ValueError: it is not JSON, or there is something else in it.
    """
    parser = _parsers.pop() if _parsers else simdjson.Parser()
    try:
        array = parser.parse(text)
        for kind, dtype in _BUFFERS.items():
            with contextlib.suppress(TypeError, ValueError):
                return np.frombuffer(array.as_buffer(of_type=kind), dtype)
    except RuntimeError as error:  # simdjson's for an integer of more than 64 bits
        raise ValueError(str(error)) from error
    finally:
        array = None  # a parser that lends out what it read reads nothing else
        if len(text) <= _KEPT_BYTES and len(_parsers) < _KEPT_PARSERS:
            _parsers.append(parser)
    raise ValueError("not only numbers")


def _shape(marks: bytes) -> tuple[int, ...] | None:
    """The shape of an array of which only brackets and commas are left, or None if it is not rectangular."""
    rank = len(marks) - len(marks.lstrip(b"["))
    if not 0 < rank <= MAX_RANK:
        return None
    shape: list[int] = []
    inner = b""
    for level in range(1, rank + 1):
        end = marks.find(b"]" * level) + level
        block = marks[rank - level : end]
        count, rest = divmod(len(block) - 1, len(inner) + 1)
        if rest or block != b"[" + b",".join([inner] * count) + b"]":
            return None
        shape.append(count)
        inner = block
    return tuple(reversed(shape)) if inner == marks else None
