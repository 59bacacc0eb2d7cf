"""JSON text to Python values, fast for what is long: arrays of numbers."""

from __future__ import annotations

import itertools
import json
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from tfserving.errors import InvalidInputError

NUMBERS: frozenset[type] = frozenset({int, float})

# numpy 1.26 stops here; TensorFlow's kernels do well before.
MAX_RANK = 32

Place = Callable[[tuple[int, ...]], str]


@dataclass(frozen=True)
class Leaves:
    """A rectangular nesting of lists, taken apart.

    Attributes:
        shape: the lengths of the lists from the outermost in; () for a value that is no list.
        values: the values in order, none of them a list.
        types: the Python types among the values; of int and float one too many may be named.
    """

    shape: tuple[int, ...]
    values: list[Any]
    types: frozenset[type]


def loads(body: bytes | bytearray) -> Any:
    """The value of a JSON text; NaN, Infinity and Inf, with a sign or not, are numbers too.

    So does RapidJSON read it as tensorflow_model_server configures it (json_tensor.cc, ParseJson). Integers
    of more than 64 bits come as float.

    Raises:
        InvalidInputError: the text is empty, not UTF-8 or not JSON.
    """
    text = body.removeprefix(b"\xef\xbb\xbf")
    if not text.strip():
        raise InvalidInputError("the body is empty: send a JSON object")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in text and b"Inf" not in text:
            raise InvalidInputError(f"the body is not JSON: {error}") from error
    try:
        spelled = _TOKENS.sub(_spell, text.decode())
        return json.loads(spelled, parse_float=_finite, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from error


def loads_dense(body: bytes | bytearray) -> Any:
    """As `loads`, but where all lists of the text are one array of numbers, `Leaves` stand in its place.

    That is the common large request. Parsing it as one flat list takes half the time of parsing it nested and
    taking it apart again.
    """
    found = _dense(body if isinstance(body, bytearray) else bytearray(body))
    return loads(body) if found is None else found


def flatten(value: Any, place: Place) -> Leaves:
    """Takes nested lists apart.

    Args:
        place: says where in the request the element with some indices is.

    Raises:
        InvalidInputError: the lists are not rectangular.
    """
    shape: list[int] = []
    level: list[Any] = [value]
    types = frozenset(map(type, level))
    while list in types:
        if len(types) > 1 or len(set(map(len, level))) > 1:
            raise _ragged(level, tuple(shape), place)
        shape.append(len(level[0]))
        level = list(itertools.chain.from_iterable(level))
        types = frozenset(map(type, level))
    return Leaves(tuple(shape), level, types)


def inflate(body: bytes | bytearray, encoding: str, limit: int) -> bytes | bytearray:
    """The body without its Content-Encoding.

    Args:
        encoding: value of the Content-Encoding header; "" for none.
        limit: most bytes that a compressed body may become, so that a small one cannot fill the memory.

    Raises:
        InvalidInputError: an encoding other than gzip and deflate, a body that is not so encoded, or more
            than `limit` bytes.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        raise InvalidInputError(f"Content-Encoding {encoding!r} is not known here: use gzip, deflate or none")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        data = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInputError(f"the body is not {name}, as its Content-Encoding says: {error}") from error
    if len(data) > limit:
        raise InvalidInputError(
            f"the {name} body of {len(body)} bytes becomes more than {limit}: send less, or uncompressed"
        )
    if not inflater.eof or inflater.unused_data:
        raise InvalidInputError(f"the {name} body does not end where its data ends: it was cut or joined")
    return data


# Strings are matched so that what looks like a number within them stays; one that does not end is matched to
# the end of the text, or else each quote in it would be looked at as the start of another.
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|-NaN|Inf(?!inity)', re.DOTALL)


def _spell(match: re.Match[str]) -> str:
    token = match[0]
    return {"-NaN": "NaN", "Inf": "Infinity"}.get(token, token)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text:.30} is too large for a number")
    return value


def _integer(text: str) -> int | float:
    value = _finite(text)
    exact = int(text)
    return exact if -(2**63) <= exact < 2**64 else value


def _ragged(level: list[Any], shape: tuple[int, ...], place: Place) -> InvalidInputError:
    """The error for lists that are rectangular down to the axes of `shape`, at whose end `level` is."""
    sizes = [len(element) if type(element) is list else None for element in level]
    index = next(index for index, size in enumerate(sizes) if size != sizes[0])
    one, other = ("no list" if size is None else f"a list of {size}" for size in (sizes[index], sizes[0]))
    here, first = (place(tuple(map(int, np.unravel_index(at, shape)))) for at in (index, 0))
    return InvalidInputError(
        f"{here} is {one} where {first} is {other}: lists of one level must be of one length, "
        "so pad them or send them in several requests"
    )


_SPACE = b" \n\r\t"
_NUMBER = b"0123456789+-.eE"
_BRACKETS_TO_SPACE = bytes.maketrans(b"[]", b"  ")
# Writers put at most one space between values; text that is indented is not worth the trouble.
_MAX_GAP = 4
_IS_SPACE, _IS_NUMBER = (
    np.isin(np.arange(256), np.frombuffer(characters, np.uint8)) for characters in (_SPACE, _NUMBER)
)


def _dense(body: bytearray) -> dict[str, Any] | None:
    """The object of a text whose lists are one array of numbers, or None: then `loads` must decide."""
    start, end = body.find(b"["), body.rfind(b"]") + 1
    head, tail = bytes(body[:start]), bytes(body[end:])
    if not 0 < start < end or b"null" in head or b"null" in tail:
        return None
    leaves = _dense_array(body, start, end)
    if leaves is None:
        return None
    # null is a value wherever the array was one; since there is no other null, it also says where that was
    try:
        value = orjson.loads(head + b"null" + tail)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    inputs = value.get("inputs")
    holders: list[dict[str, Any]] = [value, inputs] if isinstance(inputs, dict) else [value]
    for holder in holders:
        for key, held in holder.items():
            if held is None:
                holder[key] = leaves
                return value
    return None


def _dense_array(body: bytearray, start: int, end: int) -> Leaves | None:
    # no copy of the array here that can be avoided: each costs as much as a look at it
    if body[start : start + 64].lstrip(b"[" + _SPACE)[:1].strip(b"-0123456789"):
        return None
    before, after = (len(part.translate(None, _NUMBER + _SPACE)) for part in (body[:start], body[end:]))
    marks = bytes(body.translate(None, _NUMBER + _SPACE))
    shape = _regular_shape(marks[before : len(marks) - after])
    if shape is None or not _numbers_inside(np.frombuffer(body, np.uint8, end - start, start)):
        return None
    flat = body.translate(_BRACKETS_TO_SPACE)
    flat[start], flat[end - 1] = b"[]"
    try:
        values = orjson.loads(memoryview(flat)[start:end])
    except orjson.JSONDecodeError:
        return None
    return Leaves(shape, values, NUMBERS) if len(values) == math.prod(shape) else None


def _numbers_inside(text: np.ndarray[Any, Any]) -> bool:
    """Whether no number stands right before a "[" or right after a "]"; False, too, where gaps are wide.

    Every other flaw of an array shows in the order of its brackets and commas, or in the flat list.
    """
    for bracket, step in ((ord("["), -1), (ord("]"), 1)):
        places = np.flatnonzero(text == bracket)
        places = (places[1:] if step < 0 else places[:-1]) + step
        for _ in range(_MAX_GAP):
            beside = text[places]
            space = _IS_SPACE[beside]
            if not space.any():
                break
            places = places + step * space
        if (space | _IS_NUMBER[beside]).any():
            return False
    return True


def _regular_shape(marks: bytes) -> tuple[int, ...] | None:
    """The shape of an array of which only brackets and commas are left, or None if it is not rectangular."""
    rank = len(marks) - len(marks.lstrip(b"["))
    if rank > MAX_RANK:
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
    return tuple(reversed(shape)) if inner == marks and rank else None
