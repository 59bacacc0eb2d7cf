import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfserving.errors import InvalidInputError
from tfserving.server.rest import number_arrays
from tfserving.server.rest.json_body import parse_body
from tfserving.server.rest.number_arrays import NumberArray, loads_numbers

pytestmark = pytest.mark.skipif(number_arrays.simdjson is None, reason="pysimdjson is not installed")


def to_lists(value):
    """A JSON value with lists in place of a `NumberArray`."""
    if isinstance(value, NumberArray):
        return json.loads(bytes(value.text))
    if isinstance(value, dict):
        return {key: to_lists(child) for key, child in value.items()}
    return value


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (b'{"instances": [[1, 2.5], [-3e2, 4]]}', (2, 2)),
        (b'{"signature_name": "s", "instances": [ 1 , 2\n,3 ] }', (3,)),
        (b'{"inputs": [[[1, 2]]], "signature_name": "s"}', (1, 1, 2)),
        (b'{"inputs": {"x": [1.0, 2.0]}}', (2,)),
        (b'{"instances": [[1], [2.5], [3]]}', (3, 1)),
        (b'{"instances": [5]}', (1,)),
        (b'\xef\xbb\xbf{"instances": [1, 2]}', (2,)),
        (b'{"signature_name": "\xff", "x": NaN, "instances": [1, 2]}', (2,)),
        (b'{"inputs": {"x": 1, "y": [[1, 2], [2, 3]], "z": "s"}}', (2, 2)),
        (b'{"inputs": {"b": [1, 2]}, "inputs": 5}', (2,)),
        (b'{"instances": [1, 2], "instances": 5}', (2,)),
        (b'{"instances":[' + b",".join([b"[" + b",".join([b"1"] * 3) + b"]"] * 200) + b"]}", (200, 3)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_finds_the_array_of_numbers(body, shape):
    read = loads_numbers(body)
    assert repr(to_lists(read)) == repr(parse_body(body))
    parents = [part for part in (read, read.get("inputs")) if isinstance(part, dict)]
    (numbers,) = (child for part in parents for child in part.values() if isinstance(child, NumberArray))
    assert numbers.shape == shape


@pytest.mark.parametrize("rest", [b"\0", b"}", b" 2", b'"', b"{"])
def test_ignores_bytes_after_the_value(rest):
    numbers = loads_numbers(b'{"instances": [[1, 2]]}' + rest)["instances"]
    assert numbers.values.tolist() == [1, 2]


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [1[2]]}',
        b'{"instances": [[1,]2,[3,4]]}',
        b'{"instances": [[1,2],3[,4]]}',
        b'{"instances": [1,2][3]}',
        b'{"instances": [1 2]}',
        b'{"instances": [1,,2]}',
        b'{"instances": [-,1]}',
        b'{"instances": [1,2]]}',
        b'{"instances": [[1,2],[3,4]}',
        b'{"instances" [1,2]}',
        b'{"instances": [1, null]}',
        b'{"x": null, "instances": [1, 2]}',
        b'{"signature_name": "a[1,2]", "instances": 5}',
        b'{"instances": null, "signature_name": "[1,2]"}',
        b'{"instances": [[1, 2], [3]]}',
        b'{"instances": [true, 1]}',
        b'{"instances": [1, true]}',
        b'{"instances": ["[1]", "a"]}',
        b'{"instances": []}',
        b'{"instances": [[], []]}',
        b'{"instances": [[1], []]}',
        b'{"instances": [[], [1]]}',
        b'{"instances": [NaN, 1]}',
        b'{"inputs": {"a": [1, 2], "b": [2, 3]}}',
        b'{"instances": [{"a": [1, 2]}]}',
        # the first of two equal keys counts
        b'{"inputs": {"a": 1}, "inputs": {"b": [1, 2]}}',
        b'{"inputs": 5, "inputs": {"b": [1, 2]}}',
        b'{"instances": 5, "instances": [1, 2]}',
        b'{"deep": {"deeper": [1, 2]}}',
        b'{"instances": [18446744073709551616, 1]}',
        b'{"instances": 5} [1, 2]',
        b"[1, 2]",
        b"5",
        b'"[1,2]"',
        b"",
    ],
    ids=lambda value: repr(value)[:40],
)
def test_returns_none_for_other_bodies(body):
    assert loads_numbers(body) is None


MANY = 10**6
LONG = {
    "deep": b"[" * MANY + b"1,1" + b"]" * MANY,
    "opening": b"[" * MANY,
    "closing": b"[1,2" + b"]" * MANY,
    "gap": b"[[1,2]," + b" " * MANY + b"[2,3]," * 10**5 + b"[4]]",
    "integer": b"[1," + b"1" * MANY + b"]",
}


@pytest.mark.parametrize("array", LONG.values(), ids=LONG)
def test_returns_none_for_long_malformed_arrays(array):
    assert loads_numbers(b'{"instances": ' + array + b"}") is None


def test_an_array_is_unchanged_by_later_requests():
    numbers = loads_numbers(b'{"inputs": [1, 2, 3]}')["inputs"]
    loads_numbers(b'{"inputs": [4, 5, 6]}')
    assert numbers.values.tolist() == [1, 2, 3]


def as_type(text, code):
    return loads_numbers(b'{"inputs": %b}' % text)["inputs"].as_type(code)


@pytest.mark.parametrize(
    ("text", "code", "values"),
    [
        (b"[1, 2.5, -0.0, 1e38]", "f", np.array([1, 2.5, -0.0, 1e38], np.float32)),
        (b"[1, 1e39, -1e300]", "f", np.array([1, math.inf, -math.inf], np.float32)),
        (b"[1e300, 18446744073709551615]", "d", np.array([1e300, 2.0**64])),
        (
            b"[[-2147483648], [2147483647, 0]]".replace(b"], [", b", "),
            "i",
            np.array([-(2**31), 2**31 - 1, 0], np.int32),
        ),
        (b"[0, 4294967295]", "I", np.array([0, 2**32 - 1], np.uint32)),
        (b"[-9223372036854775808, 9223372036854775807]", "q", np.array([-(2**63), 2**63 - 1])),
        (b"[0, 18446744073709551615]", "Q", np.array([0, 2**64 - 1], np.uint64)),
    ],
)
def test_numbers_that_fit_a_type_become_an_array_of_it(text, code, values):
    array = as_type(text, code)
    assert array.dtype == values.dtype
    assert array.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"[1, 1.0]", "i"),
        (b"[1, 1e2]", "q"),
        (b"[1, 2147483648]", "i"),
        (b"[1, -2147483649]", "i"),
        (b"[1, 4294967296]", "I"),
        (b"[1, -1]", "I"),
        (b"[1, -1]", "Q"),
        (b"[1, 9223372036854775808]", "q"),
    ],
)
def test_numbers_that_do_not_fit_a_type_become_none(text, code):
    assert as_type(text, code) is None


NUMBER = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.just("-0"),
)
ARRAY = st.recursive(NUMBER, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
GAP = st.sampled_from(["", " ", "\n", "  "])
FRAMES = [
    '{"instances":%s}',
    '{"signature_name":"s","inputs":%s}',
    '{"inputs":{"x":%s}}',
    '{"inputs":{"x":1,"y":%s}}',
    "%s",
]


@st.composite
def regular(draw):
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    numbers = iter(draw(st.lists(NUMBER, min_size=math.prod(shape), max_size=math.prod(shape))))

    def build(sizes):
        return [build(sizes[1:]) for _ in range(sizes[0])] if sizes else next(numbers)

    return build(shape)


@st.composite
def bodies(draw):
    def write(value):
        if isinstance(value, str):
            return draw(GAP) + value + draw(GAP)
        return draw(GAP) + "[" + ",".join(map(write, value)) + "]" + draw(GAP)

    text = draw(st.sampled_from(FRAMES)) % write(draw(st.one_of(regular(), ARRAY)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at] + draw(st.sampled_from(["", *'[]{},:"0 1.-en'])) + text[at + draw(st.integers(0, 1)) :]
        )
    return text.encode()


@given(bodies())
@example(b'{"instances":[[1,]2,[3,4]]}')
@example(b'{"instances":[[],[1]]}')
def test_agrees_with_loads(body):
    found = loads_numbers(body)
    if found is not None:
        assert repr(to_lists(found)) == repr(parse_body(body))


@given(st.binary(max_size=40))
def test_random_bytes_agree_with_loads(body):
    try:
        expected = parse_body(body)
    except InvalidInputError:
        expected = None
    assert loads_numbers(body) in (None, expected)


@pytest.mark.parametrize(
    "array",
    [
        [[i, i + 1] for i in range(50)],
        [1] * 30 + [2**63] + [3] * 30,
        [-1] * 30 + [2**63] * 30,
        [2**63] * 30 + [-1] * 30,
        [1] * 30 + [1.5] + [2] * 30,
        [1.5] * 30 + [2**63 + 1] * 30,
        [[[1, 2.5]], [[-3e2, 4]]] * 20,
    ],
    ids=[
        "rows",
        "unsigned",
        "signed and unsigned",
        "unsigned and signed",
        "float",
        "float and unsigned",
        "3d",
    ],
)
def test_pieces_of_a_large_array_give_the_same_values(array, monkeypatch):
    body = json.dumps({"instances": array}).encode()
    whole = loads_numbers(body)["instances"]
    for size in (40, 41, 42, 43):
        monkeypatch.setattr(number_arrays, "_PIECE_BYTES", size)
        numbers = loads_numbers(body)["instances"]
        assert numbers.shape == whole.shape
        assert numbers.values.dtype == whole.values.dtype
        assert numbers.values.tolist() == whole.values.tolist()
        pieces = [value for piece in numbers.pieces() for value in piece.values]
        assert pieces == flat(array)


def flat(value):
    return [leaf for child in value for leaf in flat(child)] if isinstance(value, list) else [value]


@pytest.mark.parametrize("body", [b"[1,[2]]", b"[1,2]3,4]", b"[1,2,[3,4", b"[" + b"1" * 90 + b"]"])
def test_pieces_of_an_invalid_array_are_rejected(body, monkeypatch):
    monkeypatch.setattr(number_arrays, "_PIECE_BYTES", 4)
    assert loads_numbers(b'{"instances": ' + body + b"}") is None
