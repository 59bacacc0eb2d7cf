import gzip
import json
import math
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfserving.errors import InvalidInputError
from tfserving.server import rest_body
from tfserving.server.rest_body import NUMBERS, Leaves, flatten, inflate, loads, loads_dense


def place(indices):
    return f"at {list(indices)}"


def short(value):
    """A name for a test case."""
    return repr(value)[:40]


def nested(value):
    """A JSON value with `Leaves` put together again."""
    if isinstance(value, Leaves):
        array = np.empty(len(value.values), object)
        array[:] = value.values
        return array.reshape(value.shape).tolist()
    if isinstance(value, dict):
        return {key: nested(held) for key, held in value.items()}
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": [1, 2.5, -0.0]}', {"a": [1, 2.5, -0.0]}),
        (b"\xef\xbb\xbf[1]", [1]),
        (
            b"[NaN, Infinity, -Infinity, Inf, -Inf, -NaN]",
            [math.nan, math.inf, -math.inf, math.inf, -math.inf, math.nan],
        ),
        (b'["NaN", "Inf \\" -NaN", Infinity]', ["NaN", 'Inf " -NaN', math.inf]),
        (b"[NaN, 18446744073709551615, -9223372036854775808]", [math.nan, 2**64 - 1, -(2**63)]),
        (b"18446744073709551616", 2.0**64),
        (b"[18446744073709551616, NaN]", [2.0**64, math.nan]),
    ],
)
def test_json_is_read_with_the_numbers_that_rapidjson_knows(text, value):
    read = loads(text)
    assert repr(read) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" \n",
        b"{",
        b"{instances: oops",
        b"[1,]",
        b"[01]",
        b'["\xff"]',
        b"[nan]",
        b"[Infin]",
        b"[Infinite]",
        b"[1] 2",
        b"[1e999]",
        b"[1e999, NaN]",
        b"[NaN" * 3,
        b"[" * 2000,
        b"[" * 2000 + b"NaN",
        b"[" + b"1" * 400 + b", NaN]",
        b'["\xff", NaN]',
        b"null null",
        b"\x00",
        b"[-]",
        b"[+1]",
        b"[.5]",
        b"[1.]",
        b"['a']",
        b'["\x01"]',
        b'["\\ud800"]',
    ],
    ids=short,
)
def test_what_is_not_json_is_invalid(text):
    with pytest.raises(InvalidInputError, match=r"the body is (not JSON|empty)"):
        loads(text)


@pytest.mark.parametrize(
    ("value", "leaves"),
    [
        (5, Leaves((), [5], frozenset({int}))),
        ([], Leaves((0,), [], frozenset())),
        ([[], []], Leaves((2, 0), [], frozenset())),
        (
            [[1, 2.0], [True, None]],
            Leaves((2, 2), [1, 2.0, True, None], frozenset({int, float, bool, type(None)})),
        ),
        ([[[{"b64": ""}]]], Leaves((1, 1, 1), [{"b64": ""}], frozenset({dict}))),
    ],
)
def test_lists_are_taken_apart(value, leaves):
    assert flatten(value, place) == leaves


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1], [1, 2]], r"at \[1\] is a list of 2 where at \[0\] is a list of 1"),
        ([[1], 2], r"at \[1\] is no list where at \[0\] is a list of 1"),
        ([1, [2]], r"at \[1\] is a list of 1 where at \[0\] is no list"),
        ([[[1], [2]], [[3], []]], r"at \[1, 1\] is a list of 0 where at \[0, 0\] is a list of 1"),
        ([[], [1]], r"at \[1\] is a list of 1 where at \[0\] is a list of 0"),
    ],
)
def test_lists_that_are_not_rectangular_are_named(value, message):
    with pytest.raises(InvalidInputError, match=message):
        flatten(value, place)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[1, 2.5], [-3e2, 4]]}',
        b'{"signature_name": "s", "instances": [ 1 , 2\n,3 ] }',
        b'{"inputs": [[[1]]], "signature_name": "s"}',
        b'{"inputs": {"x": [1.0, 2.0]}}',
        b'{"inputs": {"x": 1, "y": [[1], [2]], "z": "s"}}',
        b'{"instances":[' + b",".join([b"[" + b",".join([b"1"] * 3) + b"]"] * 200) + b"]}",
    ],
    ids=short,
)
def test_arrays_of_numbers_come_flat(body):
    read = loads_dense(body)
    held = [held for part in (read, read.get("inputs")) if isinstance(part, dict) for held in part.values()]
    assert [leaves.types for leaves in held if isinstance(leaves, Leaves)] == [NUMBERS]
    assert nested(read) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [1[2]]}',
        b'{"instances": [[1,]2,[3,4]]}',
        b'{"instances": [[1,2],3[,4]]}',
        b'{"instances": [[1,2] ,3 [,4]]}',
        b'{"instances": [1][2]}',
        b'{"instances": [1 2]}',
        b'{"instances": [[1] 2]}',
        b'{"instances": [1,,2]}',
        b'{"instances": [-,1]}',
        b'{"instances": []]}',
        b'{"instances": [[1,2],[3,4]}',
        b'{"instances" [1]}',
    ],
)
def test_a_number_on_the_wrong_side_of_a_bracket_is_no_array(body):
    with pytest.raises(InvalidInputError, match="not JSON"):
        loads_dense(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [1, null]}',
        b'{"instances": [], "x": null}',
        b'{"x": null, "instances": [1]}',
        b'{"signature_name": "a[1]", "instances": 5}',
        b'{"instances": null, "signature_name": "[1]"}',
        b'{"instances": [[1], [2, 3]]}',
        b'{"instances": [true]}',
        b'{"instances": ["[1]"]}',
        b'{"instances": [[]]}',
        b'{"instances": [[[]], [[]]]}',
        b'{"inputs": {"a": [1], "b": [2]}}',
        b'{"instances": [{"a": [1]}]}',
        b"[1, 2]",
        b"[]",
        b"5",
        b'"[1]"',
        b'{"deep": {"deeper": [1]}}',
        b'\xef\xbb\xbf{"instances": [1]}',
        b'{"instances": [18446744073709551616]}',
    ],
)
def test_everything_else_is_read_as_ever(body):
    assert nested(loads_dense(body)) == loads(body)


MANY = 10**6
LONG = {
    "deep": b"[" * MANY + b"1" + b"]" * MANY,
    "opening": b"[" * MANY,
    "closing": b"[" + b"]" * MANY,
    "escaped quotes": b'[NaN, "' + b'\\"' * MANY,
    "quotes": b"[NaN, " + b'"' * (MANY + 1),
    "gap": b"[[1]," + b" " * MANY + b"[2]," + b"[3]," * (MANY // 10) + b"[4]",
    "integer": b"[" + b"1" * MANY + b"]",
    "integer beside NaN": b"[" + b"1" * MANY + b", NaN]",
}


@pytest.mark.parametrize("array", LONG.values(), ids=LONG)
def test_no_text_takes_long(array):
    with pytest.raises(InvalidInputError, match="not JSON"):
        loads_dense(b'{"instances": ' + array + b"}")


NUMBER = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.just("-0"),
)
ARRAY = st.recursive(NUMBER, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
GAP = st.sampled_from(["", " ", "\n", "  "])


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

    array = write(draw(st.one_of(regular(), ARRAY)))
    frame = draw(
        st.sampled_from(
            [
                '{"instances":%s}',
                '{"signature_name":"s","inputs":%s}',
                '{"inputs":{"x":%s}}',
                '{"inputs":{"x":1,"y":%s}}',
                "%s",
            ]
        )
    )
    text = frame % array
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at] + draw(st.sampled_from(["", *'[]{},:"0 1.-en'])) + text[at + draw(st.integers(0, 1)) :]
        )
    return text.encode()


def outcome(read, body):
    try:
        return repr(nested(read(body)))
    except InvalidInputError:
        return "refused"


@given(bodies())
@example(b'{"instances":[[1,]2,[3,4]]}')
def test_dense_reading_agrees_with_plain_reading(body):
    assert outcome(loads_dense, body) == outcome(loads, body)


@given(st.binary(max_size=40))
def test_garbage_is_refused_and_nothing_else(body):
    assert outcome(loads_dense, body) == outcome(loads, body)


def test_a_body_without_an_encoding_stays_as_it_is():
    assert inflate(b"abc", "", 1) == b"abc"
    assert inflate(b"abc", " Identity ", 1) == b"abc"


@pytest.mark.parametrize("name", ["gzip", "GZIP", "x-gzip"])
def test_gzip(name):
    assert inflate(gzip.compress(b"abc"), name, 3) == b"abc"


def test_deflate_is_zlib():
    assert inflate(zlib.compress(b"abc"), "deflate", 3) == b"abc"


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b"abc", "gzip", "is not gzip"),
        (b"", "gzip", "was cut"),
        (gzip.compress(b"abc")[:-3], "gzip", "was cut"),
        (gzip.compress(b"abc") + b"x", "gzip", "joined"),
        (b"abc", "br", "'br' is not known"),
        (b"abc", "gzip, gzip", "is not known"),
    ],
)
def test_a_wrong_encoding_is_invalid(body, encoding, message):
    with pytest.raises(InvalidInputError, match=message):
        inflate(body, encoding, 100)


def test_a_bomb_is_not_inflated():
    bomb = gzip.compress(bytes(10_000_000))
    with pytest.raises(InvalidInputError, match="more than 1000"):
        inflate(bomb, "gzip", 1000)


def test_the_tables_tell_numbers_and_space_apart():
    assert not (rest_body._IS_NUMBER & rest_body._IS_SPACE).any()
    assert bytes(np.flatnonzero(rest_body._IS_NUMBER).astype(np.uint8)) == bytes(sorted(b"0123456789+-.eE"))
