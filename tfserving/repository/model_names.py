"""Model names that are safe wherever they end up: a directory, a URL, a command line, a TSV column."""

from __future__ import annotations

import re

from tfserving.errors import InvalidInputError

RULE = "letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_', at most 128 of them"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether `text` may name a model."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str) -> str:
    """Returns `text` when it may name a model.

    Raises:
        InvalidInputError: it may not; the message says which characters may be used.
    """
    if not is_name(text):
        raise InvalidInputError(f"{text!r} is no model name: use {RULE}", model=text)
    return text
