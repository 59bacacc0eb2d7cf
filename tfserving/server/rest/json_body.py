"""The bodies of REST requests: inflated, parsed, and nested lists taken apart."""

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

Place = Callable[[tuple[int, ...]], str]


@dataclass(frozen=True)
class Leaves:
    """A rectangular nesting of lists, taken apart.

    Attributes:
        shape: the lengths of the lists from the outermost in; () for a value that is no list.
        values: the values in order, none of them a list.
        types: the Python types among the values.
    """

    shape: tuple[int, ...]
    values: list[Any]
    types: frozenset[type]


def loads(body: bytes) -> Any:
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


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
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
