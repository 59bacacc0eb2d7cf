"""Text from a server in a form that cannot change a terminal or add lines to a log."""

from __future__ import annotations

import unicodedata


def escape_unprintable(text: str, keep: str = "") -> str:
    """Replace control, format and separator characters, except those in `keep`, by escapes as in JSON.

    Inside a JSON string, the escapes stand for the same characters.
    """
    if text.isprintable():
        return text
    return "".join(one if _is_printable(one) or one in keep else _escape(one) for one in text)


def _is_printable(character: str) -> bool:
    # wide and no-break spaces are printable, although str.isprintable says otherwise
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if short is not None:
        return short
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
