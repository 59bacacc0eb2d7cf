import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserving.client.printable import escape_unprintable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("caf\u00e9 \u4e2d \u3000\u00a0", "caf\u00e9 \u4e2d \u3000\u00a0"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x00\x1b\x7f\x9b", r"\u0000\u001b\u007f\u009b"),
        ("\u202e\u2028\ud800", r"\u202e\u2028\ud800"),
        ("\U000e0001", r"\udb40\udc01"),
    ],
)
def test_escapes_what_is_not_printable(text, expected):
    assert escape_unprintable(text) == expected


def test_keeps_given_characters():
    assert escape_unprintable("a\nb\t", keep="\n") == "a\nb\\t"


@given(st.text())
def test_json_stays_equal(text):
    dumped = json.dumps(text, ensure_ascii=False)
    assert json.loads(escape_unprintable(dumped)) == text
