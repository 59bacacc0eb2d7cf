import contextlib
import gzip
import json
import math
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserving.errors import InvalidInputError
from tfserving.server.rest.json_body import FlatArray, RepeatedKeys, flatten, inflate, parse_body, to_bytes


def path_of(indices):
    return f"at {list(indices)}"


def short(value):
    """A name for a test case."""
    return repr(value)[:40]


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
def test_parses_json_with_the_numbers_of_rapidjson(text, value):
    assert repr(parse_body(text)) == repr(value)


@pytest.mark.parametrize(
    "rest", [b"\0", b" ]", b"}", b" 2", b'"', b"\n{", b"NaN", b"\xff", b"]" * 10**6], ids=short
)
@pytest.mark.parametrize("text", [b'{"a": [1.5]}', b' \n[NaN, "]"]', b"\xef\xbb\xbfnull"])
def test_ignores_bytes_after_the_value(text, rest):
    assert repr(parse_body(text + rest)) == repr(parse_body(text))


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (b"\xff\xfe", b"\xff\xfe"),
        (b"caf\xe9: \xc3\xa9", b"caf\xe9: \xc3\xa9"),
        ("测试".encode("gbk"), "测试".encode("gbk")),
        (b"\xed\xa0\x80", b"\xed\xa0\x80"),
        (b"\\u00e9\\n\xe9", b"\xc3\xa9\n\xe9"),
        (b"\\ud83d\\ude00", "😀".encode()),
        # RapidJSON writes the three bytes of a lone low surrogate, and rejects a lone high one
        (b"\\udcff", b"\xed\xb3\xbf"),
        (b"\\uDC80\\ud83d\\ude00\\\\ud800", b"\xed\xb2\x80" + "😀\\ud800".encode()),
        (b"NaN \\udfff", b"NaN \xed\xbf\xbf"),
    ],
    ids=short,
)
def test_a_string_can_contain_any_bytes(text, data):
    for other in (b"1", b"NaN", b'"a:b"'):
        value = parse_body(b'["%b", %b]' % (text, other))
        assert to_bytes(value[0]) == data


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "b": 2, "a": 3}',
        b'{"a": 1, "b": 2, "a": NaN}',
        b'{"a": 1, "b": 2, "\\u0061": 3} ]',
        b'{"a": 1, "b": 2, "a": {"c": [1, 2], "d": "e:f"}}',
    ],
)
def test_the_first_of_equal_keys_counts(text):
    value = parse_body(text)
    assert value == {"a": 1, "b": 2}
    assert isinstance(value, RepeatedKeys)
    assert value.last.keys() == {"a", "b"}
    assert value.last["a"] != 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'[{"a": {"b": 1, "b": 2}}]', [{"a": {"b": 1}}]),
        (b'[[[{"b": 1, "b": 2}]]]', [[[{"b": 1}]]]),
        (b'[1, "a:b", {"b": 1, "b": 2}]', [1, "a:b", {"b": 1}]),
        (b'{"x": "\\":", "y": [{}, {"b": 1, "b": 2}]}', {"x": '":', "y": [{}, {"b": 1}]}),
        (b'{"x": "a\\\\", "y": {"b": ":\\\\\\"", "b": 2}}', {"x": "a\\", "y": {"b": ':\\"'}}),
    ],
)
def test_equal_keys_are_found_at_every_depth(text, value):
    assert parse_body(text) == value


JSON = st.recursive(
    st.one_of(st.none(), st.integers(-9, 9), st.text(':"\\{a', max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(st.tuples(st.sampled_from(["a", "b", ":", '"']), inner), max_size=3),
    ),
    max_leaves=8,
)


@given(JSON)
def test_equal_keys_do_not_change_other_values(value):
    """Pairs are members of objects, which can have equal keys."""

    def write(value):
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            return "{" + ",".join(f"{json.dumps(key)}:{write(member)}" for key, member in value) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(write, value)) + "]"
        return json.dumps(value)

    def expected(value):
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            return {key: expected(member) for key, member in reversed(value)}
        return list(map(expected, value)) if isinstance(value, list) else value

    assert parse_body(write(value).encode()) == expected(value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" \n",
        b"{",
        b"{instances: oops",
        b"[1,]",
        b"[01]",
        b"[nan]",
        b"[Infin]",
        b"[Infinite]",
        b"[1e999]",
        b"[1e999, NaN]",
        b"[NaN" * 3,
        b"[" * 2000,
        b"[" * 2000 + b"NaN",
        b"[" + b"1" * 400 + b", NaN]",
        b"\x00",
        b"[-]",
        b"[+1]",
        b"[.5]",
        b"[1.]",
        b"['a']",
        b'["\x01"]',
        b'["\\ud800"]',
        b'["\\ud800\\u0041"]',
        b'["\\uDBFF", NaN]',
        b'["\\ud8"]',
        b'\xff["a"]',
    ],
    ids=short,
)
def test_rejects_what_is_not_json(text):
    with pytest.raises(InvalidInputError, match=r"the body is (not JSON|empty)"):
        parse_body(text)


@pytest.mark.parametrize(
    ("value", "flat"),
    [
        (5, FlatArray((), [5], frozenset({int}))),
        ([], FlatArray((0,), [], frozenset())),
        ([[], []], FlatArray((2, 0), [], frozenset())),
        (
            [[1, 2.0], [True, None]],
            FlatArray((2, 2), [1, 2.0, True, None], frozenset({int, float, bool, type(None)})),
        ),
        ([[[{"b64": ""}]]], FlatArray((1, 1, 1), [{"b64": ""}], frozenset({dict}))),
    ],
)
def test_flattens_rectangular_lists(value, flat):
    assert flatten(value, path_of) == flat


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1], [1, 2]], r"at \[1\] is a list of 2, but at \[0\] is a list of 1"),
        ([[1], 2], r"at \[1\] is not a list, but at \[0\] is a list of 1"),
        ([1, [2]], r"at \[1\] is a list of 1, but at \[0\] is not a list"),
        ([[[1], [2]], [[3], []]], r"at \[1, 1\] is a list of 0, but at \[0, 0\] is a list of 1"),
        ([[], [1]], r"at \[1\] is a list of 1, but at \[0\] is a list of 0"),
    ],
)
def test_rejects_lists_that_are_not_rectangular(value, message):
    with pytest.raises(InvalidInputError, match=message):
        flatten(value, path_of)


MANY = 10**6
LONG = {
    "deep": b"[" * MANY + b"1" + b"]" * MANY,
    "opening": b"[" * MANY,
    "escaped quotes": b'[NaN, "' + b'\\"' * MANY,
    "quotes": b"[NaN, " + b'"' * (MANY + 1),
    "integer": b"[" + b"1" * MANY + b"]",
    "integer beside NaN": b"[" + b"1" * MANY + b", NaN]",
    "escaped surrogates": b'["' + b"\\udc00" * MANY,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_rejects_long_malformed_text(text):
    with pytest.raises(InvalidInputError, match="not JSON"):
        parse_body(text)


@given(st.binary(max_size=40))
def test_random_bytes_are_parsed_or_rejected(body):
    with contextlib.suppress(InvalidInputError):
        parse_body(body)


@pytest.mark.parametrize("encoding", ["", "identity", "br", "deflate", "GZIP", "zstd, br"])
def test_an_encoding_other_than_gzip_is_ignored(encoding):
    assert inflate(b"abc", encoding, 1) == b"abc"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " gzip, br"])
def test_decompresses_gzip(encoding):
    assert inflate(gzip.compress(b"abc"), encoding, 3) == b"abc"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"abc", "is not gzip"),
        (zlib.compress(b"abc"), "is not gzip"),
        (b"", "truncated"),
        (gzip.compress(b"abc")[:-3], "truncated"),
        (gzip.compress(b"abc") + b"x", "followed by other data"),
    ],
    ids=["text", "zlib", "empty", "cut off", "followed by a byte"],
)
def test_rejects_a_body_that_is_not_gzip(body, message):
    with pytest.raises(InvalidInputError, match=message):
        inflate(body, "gzip", 100)


def test_rejects_a_body_that_expands_beyond_the_limit():
    bomb = gzip.compress(bytes(10_000_000))
    with pytest.raises(InvalidInputError, match="more than 1000"):
        inflate(bomb, "gzip", 1000)
