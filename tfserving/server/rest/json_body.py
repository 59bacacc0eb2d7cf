"""The bodies of REST requests: decompress, parse JSON, flatten nested lists."""

from __future__ import annotations

import itertools
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import orjson

from tfserving.errors import InvalidInputError
from tfserving.server.server_options import LimitOptions
from tfserving.wire.dtypes import Array
from tfserving.wire.limits import MAX_RANK

T = TypeVar("T")

# Formats the path of the element with these indices, such as "instances[1].x[2]", for errors.
PathFormatter = Callable[[tuple[int, ...]], str]

# Elements of a list, or bytes of a text, that are processed in one step. Other threads run between the steps:
# what is written in C, such as frozenset(map(...)), holds the interpreter lock to its end.
PIECE_VALUES = 1 << 16
_PIECE_BYTES = 1 << 20


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
    types: set[type]


class RepeatedKeys(dict[str, Any]):
    """A JSON object in which a key occurs more than once: the first value of each key.

    Attributes:
        last: the last value of each key.
    """

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        super().__init__(reversed(members))
        self.last = dict(members)


def parse_body(body: bytes, max_values: int = LimitOptions.max_json_values) -> Any:
    """Parse JSON with the rules of tensorflow_model_server (json_tensor.cc, ParseJson, and RapidJSON 1.1.0).

    - NaN, Infinity and Inf are numbers, with or without a minus sign.
    - Integers of more than 64 bits become floats.
    - Of equal keys the first counts: the object is a `RepeatedKeys`.
    - Strings are bytes, not necessarily UTF-8: `to_bytes` returns them.
    - Bytes after the JSON value are ignored.

    Raises:
        InvalidInputError: the body is empty or not JSON, or has more than `max_values` values, which are
            counted before any is created.
    """
    text = body.removeprefix(b"\xef\xbb\xbf")
    if not text[:64].strip() and _is_blank(text):
        raise InvalidInputError("the body is empty; send a JSON object")
    _check_number_of_values(text, max_values)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_by_rules(text)
    # most requests have one colon, so no key occurs twice
    if _has_more_colons(text, 1) and _has_more_colons(text, members := _count_members(value)):
        plain = text.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in text else text
        if _count_outside_strings(plain, {b":": 1}) > members:
            return _parse_by_rules(text)
    return value


def to_bytes(text: str) -> bytes:
    """The bytes of a string in a body."""
    return text.encode("utf-8", "surrogateescape")


def flatten(value: Any, path_of: PathFormatter) -> FlatArray:
    """Flatten nested lists.

    Raises:
        InvalidInputError: the shape is not rectangular.
    """
    shape: list[int] = []
    level: list[Any] = [value]
    types = _distinct(type, level)
    while list in types:
        if len(shape) == MAX_RANK:
            raise InvalidInputError(
                f"{path_of(())} has lists nested {MAX_RANK + _depth(level)} deep; the maximum is {MAX_RANK}"
            )
        if len(level) > 1 and (len(types) > 1 or len(_distinct(len, level)) > 1):
            raise _not_rectangular(level, tuple(shape), path_of)
        shape.append(len(level[0]))
        joined: list[Any] = []
        for piece in in_pieces(level):
            joined.extend(itertools.chain.from_iterable(piece))
        level = joined
        types = _distinct(type, level)
    return FlatArray(tuple(shape), level, types)


def _depth(level: Any) -> int:
    """How deep the elements of a list are nested."""
    depth = 0
    while isinstance(level[0], list):
        level = level[0] or [None]
        depth += 1
    return depth


def in_pieces(values: list[T]) -> Iterable[list[T]]:
    """The elements of a list, PIECE_VALUES at a time."""
    if len(values) <= PIECE_VALUES:
        return (values,)
    return (values[start : start + PIECE_VALUES] for start in range(0, len(values), PIECE_VALUES))


def _distinct(function: Callable[[Any], T], values: list[Any]) -> set[T]:
    """The different results of a function for the elements of a list."""
    results: set[T] = set()
    for piece in in_pieces(values):
        results.update(map(function, piece))
    return results


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a body if its encoding is gzip; any other encoding is ignored, as in evhttp_request.cc.

    Args:
        encoding: value of the Content-Encoding header; "" if there is none.
        limit: maximum size of the result in bytes; see --rest_api_max_body_bytes.

    Raises:
        InvalidInputError: the body is not gzip, or becomes larger than `limit`.
    """
    if "gzip" not in encoding:
        return body
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        data = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInputError(f"the body is not gzip, as Content-Encoding declares: {error}") from error
    if len(data) > limit:
        raise InvalidInputError(
            f"the gzip body of {len(body)} bytes expands to more than {limit} bytes "
            "(--rest_api_max_body_bytes); send a smaller request"
        )
    if not inflater.eof or inflater.unused_data:
        raise InvalidInputError("the gzip body is truncated or followed by other data")
    return data


def _parse_by_rules(text: bytes) -> Any:
    """Parse JSON with the rules of `parse_body`; orjson has only those of standard JSON."""
    try:
        if _NOT_STANDARD.search(text):
            text = _standardize(text)
        return _DECODER.raw_decode(text.lstrip(b" \n\r\t").decode("utf-8", "surrogateescape"))[0]
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from error


def _count_members(value: Any) -> int:
    """The number of members of all objects in a JSON value.

    Lists whose first value is not an object are taken to contain none, so the result can be too low.
    """
    count, values = 0, [value]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            count += len(value)
            values.extend(value.values())
        elif isinstance(value, list):
            first: Any = value
            while isinstance(first, list) and first:
                first = first[0]
            if isinstance(first, dict):
                values.extend(value)
    return count


def _is_blank(text: bytes) -> bool:
    return not any(text[start : start + _PIECE_BYTES].strip() for start in range(0, len(text), _PIECE_BYTES))


def _has_more_colons(text: bytes, count: int) -> bool:
    """Whether a text has more than `count` colons."""
    # bytes.count takes 1.4 ms for 3 MB of numbers, find 0.2 ms
    position = -1
    for _ in range(count + 1):
        position = text.find(b":", position + 1)
        if position < 0:
            return False
    return True


# How much a character outside of strings adds to the number of values: a list or an object takes several
# times the memory of another value.
_VALUES_OF = {b",": 1, b":": 1, b"[": 4, b"{": 4}
_MAX_VALUES_OF_BYTE = max(_VALUES_OF.values())


def _check_number_of_values(text: bytes, max_values: int) -> None:
    """Count at most `max_values` values, at first as if there were no strings, which is faster."""
    if len(text) * _MAX_VALUES_OF_BYTE <= max_values:
        return
    count = 0
    for start in range(0, len(text), _PIECE_BYTES):
        end = start + _PIECE_BYTES
        count += sum(text.count(character, start, end) * n for character, n in _VALUES_OF.items())
        count += text.count(b'"', start, end) // 2
        if count > max_values:
            break
    else:
        return
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    # in text that is not JSON, there can be more strings than values
    if (
        text.count(b'"') // 2 > max_values
        or _count_outside_strings(text, _VALUES_OF, max_values) > max_values
    ):
        raise InvalidInputError(
            f"the body has more than {max_values} values (--rest_api_max_json_values); send a smaller "
            "request, or numbers in a single rectangular list"
        )


def _count_outside_strings(text: bytes, numbers: Mapping[bytes, int], limit: float = math.inf) -> int:
    """The sum of numbers for characters outside of strings, up to about `limit`, in JSON without `\\"`."""
    number_of = np.zeros(256, np.int64)
    for character, number in numbers.items():
        number_of[ord(character)] = number
    count = 0
    in_string: Array = np.zeros(1, np.bool_)
    for start in range(0, len(text), _PIECE_BYTES):
        codes = np.frombuffer(text, np.uint8, min(_PIECE_BYTES, len(text) - start), start)
        inside = np.logical_xor.accumulate(codes == ord('"')) ^ in_string
        count += int(number_of[codes[~inside]].sum())
        if count > limit:
            break
        in_string = inside[-1:]
    return count


# Strings are matched so that tokens in them stay as they are. A string without an end is matched up to the
# end of the text; otherwise each quote in it would start another attempt, which takes quadratic time.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|-NaN|Inf(?!inity)', re.DOTALL)
_NOT_STANDARD = re.compile(rb"NaN|Inf|\\u[dD][89a-fA-F]")
# A pair of surrogates, another one (the group), or any other escape sequence.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _standardize(text: bytes) -> bytes:
    """JSON with the tokens of RapidJSON in the form that Python's parser takes."""
    # not _TOKEN.sub: it takes 100 bytes of memory for each string in the text
    parts: list[bytes] = []
    copied = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if not token.startswith(b'"'):
            standard = {b"-NaN": b"NaN", b"Inf": b"Infinity"}[token]
        elif b"\\u" in token:
            standard = _ESCAPE.sub(_to_standard_escape, token)
        else:
            continue
        parts += (text[copied : match.start()], standard)
        copied = match.end()
    return b"".join((*parts, text[copied:]))


def _to_standard_escape(match: re.Match[bytes]) -> bytes:
    """Replaces a lone low surrogate by its bytes, as RapidJSON does."""
    if match[1] is None:
        return match[0]
    code = int(match[1], 16)
    if code < 0xDC00:
        raise ValueError(f"lone surrogate {match[0].decode()}")
    return chr(code).encode("utf-8", "surrogatepass")


def _to_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    return value if len(value) == len(members) else RepeatedKeys(members)


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"number {text:.30} is too large")
    return value


def _parse_int(text: str) -> int | float:
    value = _parse_float(text)
    exact = int(text)
    return exact if -(2**63) <= exact < 2**64 else value


_DECODER = json.JSONDecoder(object_pairs_hook=_to_object, parse_float=_parse_float, parse_int=_parse_int)


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
