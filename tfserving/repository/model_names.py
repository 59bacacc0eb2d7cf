"""Model names, which become directories, parts of URLs, arguments of commands and columns of TSV."""

from __future__ import annotations

import json
import re

from tfserving.errors import InvalidInputError

RULE = "use letters, digits, '_', '-' and '.', at most 128; the name must start with a letter, a digit or '_'"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether `text` is a valid model name."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str) -> str:
    """Return `text` if it is a valid model name.

    Raises:
        InvalidInputError: it is not; the message gives the rule.
    """
    if not is_name(text):
        raise InvalidInputError(f"{quote(text)} is not a valid model name; {RULE}", model=text)
    return text


def name_or_placeholder(text: str) -> str:
    """The name, NAME if it is not valid, for the commands in hints."""
    return text if is_name(text) else "NAME"


def quote(text: str) -> str:
    """The text in double quotes with control characters escaped, for messages."""
    return json.dumps(text, ensure_ascii=False)
