"""The bodies of REST requests: decompress, parse JSON, flatten nested lists."""

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

# Formats the path of the element with these indices, such as "instances[1].x[2]", for errors.
PathFormatter = Callable[[tuple[int, ...]], str]


@dataclass(frozen=True)
class FlatArray:
    """Nested lists of a rectangular shape, flattened.

    Attributes:
        shape: the lengths of the lists from the outermost in; () for a value that is not a list.
        values: the elements in order; none of them is a list.
        types: the Python types of the elements.
    """

    shape: tuple[int, ...]
    values: list[Any]
    types: frozenset[type]


def parse_body(body: bytes) -> Any:
    """Parse JSON that can also contain NaN, Infinity and Inf, with or without a minus sign.

    This is what RapidJSON accepts with the options of tensorflow_model_server (json_tensor.cc, ParseJson).
    Integers of more than 64 bits become floats.

    Raises:
        InvalidInputError: the body is empty, not UTF-8 or not JSON.
    """
    text = body.removeprefix(b"\xef\xbb\xbf")
    if not text.strip():
        raise InvalidInputError("the body is empty; send a JSON object")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in text and b"Inf" not in text:
            raise InvalidInputError(f"the body is not JSON: {error}") from error
    try:
        standard = _TOKENS.sub(_to_python_token, text.decode())
        return json.loads(standard, parse_float=_parse_float, parse_int=_parse_int)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from error


def flatten(value: Any, path_of: PathFormatter) -> FlatArray:
    """Flatten nested lists.

    Raises:
        InvalidInputError: the shape is not rectangular.
    """
    shape: list[int] = []
    level: list[Any] = [value]
    types = frozenset(map(type, level))
    while list in types:
        if len(types) > 1 or len(set(map(len, level))) > 1:
            raise _not_rectangular(level, tuple(shape), path_of)
        shape.append(len(level[0]))
        level = list(itertools.chain.from_iterable(level))
        types = frozenset(map(type, level))
    return FlatArray(tuple(shape), level, types)


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a body.

    Args:
        encoding: value of the Content-Encoding header; "" if there is none.
        limit: maximum size of the result in bytes.

    Raises:
        InvalidInputError: an encoding other than gzip and deflate, a body that is not in this encoding, or
            one that becomes larger than `limit`.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        raise InvalidInputError(f"Content-Encoding {encoding!r} is not supported; use gzip, deflate or none")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        data = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInputError(f"the body is not {name}, as Content-Encoding declares: {error}") from error
    if len(data) > limit:
        raise InvalidInputError(
            f"the {name} body of {len(body)} bytes expands to more than {limit} bytes; send it "
            "uncompressed, or send a smaller request"
        )
    if not inflater.eof or inflater.unused_data:
        raise InvalidInputError(f"the {name} body is truncated or followed by other data")
    return data


# Strings are matched so that their contents stay as they are. A string without an end is matched up to the
# end of the text; otherwise each quote in it would start another attempt, which takes quadratic time.
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|-NaN|Inf(?!inity)', re.DOTALL)


def _to_python_token(match: re.Match[str]) -> str:
    token = match[0]
    return {"-NaN": "NaN", "Inf": "Infinity"}.get(token, token)


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"number {text:.30} is too large")
    return value


def _parse_int(text: str) -> int | float:
    value = _parse_float(text)
    exact = int(text)
    return exact if -(2**63) <= exact < 2**64 else value


def _not_rectangular(level: list[Any], shape: tuple[int, ...], path_of: PathFormatter) -> InvalidInputError:
    """The error for lists that are rectangular in the dimensions of `shape`, but not in `level`, the next."""
    sizes = [len(element) if type(element) is list else None for element in level]
    index = next(index for index, size in enumerate(sizes) if size != sizes[0])
    kind, first_kind = (
        "not a list" if size is None else f"a list of {size}" for size in (sizes[index], sizes[0])
    )
    path, first_path = (path_of(tuple(map(int, np.unravel_index(at, shape)))) for at in (index, 0))
    return InvalidInputError(
        f"{path} is {kind}, but {first_path} is {first_kind}; pad the lists of one level to the same "
        "length, or send them in separate requests"
    )
