"""Which names a model may have."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserving.errors import InvalidInputError
from tfserving.repository.model_names import check_name, is_name


@pytest.mark.parametrize("name", ["digits", "half_plus_two", "Bert-base.v2", "7", "_private", "a" * 128])
def test_names(name: str) -> None:
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
def test_no_names(name: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(f"{name!r} is no model name: use letters, digits")):
        check_name(name)


@given(st.text())
def test_a_name_is_one_part_of_a_path_and_of_a_url(name: str) -> None:
    if is_name(name):
        assert not set(name) & set("/\\ \t\n:;'\"$?#%&*")
        assert name.isascii()
        assert name[0] not in ".-"
