"""Valid and invalid model names."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserving.errors import InvalidInputError
from tfserving.repository.model_names import check_name, is_name


@pytest.mark.parametrize("name", ["digits", "half_plus_two", "Bert-base.v2", "7", "_private", "a" * 128])
def test_accepts_a_valid_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "a/b",
        "a b",
        "a;b",
        "a'b",
        'a"b',
        "a\n",
        "a\tb",
        "é",
        "a:b",
        "$a",
        "a" * 129,
    ],
)
def test_rejects_an_invalid_name(name: str) -> None:
    message = f"{json.dumps(name, ensure_ascii=False)} is not a valid model name; use letters, digits"
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        check_name(name)


@given(st.text())
def test_a_valid_name_needs_no_escaping_in_paths_and_urls(name: str) -> None:
    if is_name(name):
        assert not set(name) & set("/\\ \t\n:;'\"$?#%&*")
        assert name.isascii()
        assert name[0] not in ".-"
