"""Positions of the fields in a configuration file in protobuf text format or JSON.

protobuf's Python parser reports the position of a syntax error, but not those of the fields. This reader does
only that: it accepts any text, and its result is correct for a text that the parser accepts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

_TOKEN = re.compile(
    r"""
    (?P<skip>   \s+ | \#[^\n]* )
  | (?P<string> "(?:[^"\\\n]|\\.)*"? | '(?:[^'\\\n]|\\.)*'? )
  | (?P<word>   [\w.+\-/]+ )
  | (?P<mark>   . )
    """,
    re.VERBOSE,
)

_PIECE = re.compile(r"[^\\]+|\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)?", re.DOTALL)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

# More than a ModelServerConfig has. Deeper levels are read as siblings, so that any depth is accepted.
_DEPTH = 50

_CLOSING = {"{": "}", "<": ">", "[": "]"}


@dataclass(frozen=True)
class Field:
    """A field of a message or a member of a JSON object.

    Attributes:
        name: as written, without quotes; "" for the whole text and for an item of a list.
        line, column: position of the name, counted from 1.
        value: the scalar, a string without its quotes and escapes; None for anything else.
        fields: the fields between braces, in order.
        items: the items between brackets, in order; None without brackets.
        start, end: offsets in the text of the name and of what follows the value; for an item, of its value.
        value_start: offset of the value.
    """

    name: str
    line: int
    column: int
    value: str | None = None
    fields: tuple[Field, ...] = ()
    items: tuple[Field, ...] | None = None
    start: int = field(default=0, compare=False)
    value_start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)

    def all(self, name: str) -> tuple[Field, ...]:
        """The fields with this name in snake case, also if written in camel case; the items of a list."""
        found: list[Field] = []
        for member in self.fields:
            if snake_case(member.name) == name:
                found.extend((member,) if member.items is None else member.items)
        return tuple(found)

    def first(self, name: str) -> Field:
        """The first field with this name; if there is none, this field, whose position comes closest."""
        found = self.all(name)
        return found[0] if found else self

    def walk(self) -> Iterator[Field]:
        """Yield this field and all below it, in order."""
        yield self
        for member in (*self.fields, *(self.items or ())):
            yield from member.walk()


def read(text: str) -> Field:
    """The whole text as a field without a name; it has `items` if the text is a JSON list."""
    tokens = _Tokens(text)
    if tokens.kind == "[":
        return Field("", 1, 1, items=_read_items(tokens), end=len(text))
    if tokens.kind == "{":
        tokens.take()
    return Field("", 1, 1, fields=_read_fields(tokens, "}"), end=len(text))


def snake_case(name: str) -> str:
    """`modelConfigList` as `model_config_list`; a name in snake case does not change."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


@dataclass
class _Tokens:
    """The tokens of a text, one at a time; `kind` is "string", "word", "end" or a punctuation mark.

    `start` is the offset of the token, `last_end` that of the end of the token before it.
    """

    text: str
    kind: str = ""
    value: str = ""
    line: int = 1
    column: int = 1
    start: int = 0
    last_end: int = 0
    _at: int = 0
    _line_start: int = 0
    _next_line: int = 1
    depth: int = 0

    def __post_init__(self) -> None:
        self.take()

    def take(self) -> None:
        self.last_end = self._at
        while match := _TOKEN.match(self.text, self._at):
            self.start = self._at
            self.line, self.column = self._next_line, self._at - self._line_start + 1
            self._at = match.end()
            newlines = match[0].count("\n")
            if newlines:
                self._next_line += newlines
                self._line_start = match.start() + match[0].rindex("\n") + 1
            if match.lastgroup == "skip":
                continue
            self.value = match[0]
            self.kind = self.value if match.lastgroup == "mark" else str(match.lastgroup)
            if self.kind == "string":
                self.value = _unquoted(self.value)
            return
        self.kind = "end"


def _read_fields(tokens: _Tokens, closing: str) -> tuple[Field, ...]:
    fields = []
    while tokens.kind not in ("end", closing):
        if tokens.kind in ("string", "word"):
            name, line, column, start = tokens.value, tokens.line, tokens.column, tokens.start
            tokens.take()
            while tokens.kind == ":":
                tokens.take()
            fields.append(_read_value(tokens, name, line, column, start))
        elif tokens.kind == "[":
            fields.append(_read_extension(tokens))
        else:
            tokens.take()
    tokens.take()
    return tuple(fields)


def _read_extension(tokens: _Tokens) -> Field:
    """`[type.googleapis.com/package.Message] { … }`, an Any in text format."""
    line, column, start = tokens.line, tokens.column, tokens.start
    name = "".join(item.value or "" for item in _read_items(tokens))
    while tokens.kind == ":":
        tokens.take()
    return _read_value(tokens, f"[{name}]", line, column, start)


def _read_value(tokens: _Tokens, name: str, line: int, column: int, start: int) -> Field:
    value_start = tokens.start
    read = _read_content(tokens, name, line, column)
    return replace(read, start=start, value_start=value_start, end=tokens.last_end)


def _read_content(tokens: _Tokens, name: str, line: int, column: int) -> Field:
    if tokens.kind in _CLOSING and tokens.depth == _DEPTH:
        tokens.take()
        return Field(name, line, column)
    if tokens.kind in ("{", "<"):
        closing = _CLOSING[tokens.kind]
        tokens.take()
        tokens.depth += 1
        fields = _read_fields(tokens, closing)
        tokens.depth -= 1
        return Field(name, line, column, fields=fields)
    if tokens.kind == "[":
        tokens.depth += 1
        items = _read_items(tokens)
        tokens.depth -= 1
        return Field(name, line, column, items=items)
    if tokens.kind == "word":
        value = tokens.value
        tokens.take()
        return Field(name, line, column, value)
    if tokens.kind == "string":
        parts = []
        while tokens.kind == "string":  # adjacent strings are one
            parts.append(tokens.value)
            tokens.take()
        return Field(name, line, column, "".join(parts))
    return Field(name, line, column)


def _read_items(tokens: _Tokens) -> tuple[Field, ...]:
    items = []
    tokens.take()
    while tokens.kind not in ("end", "]"):
        if tokens.kind in ("{", "<", "[", "string", "word"):
            items.append(_read_value(tokens, "", tokens.line, tokens.column, tokens.start))
        else:
            tokens.take()
    tokens.take()
    return tuple(items)


def _unquoted(literal: str) -> str:
    body = literal[1:-1] if len(literal) > 1 and literal[-1] == literal[0] else literal[1:]
    if "\\" not in body:
        return body
    # Text format escapes bytes of UTF-8, JSON units of UTF-16; decode both from bytes of UTF-8.
    data = b"".join(_unescaped(match[0]) for match in _PIECE.finditer(body))
    try:
        units = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unescaped(piece: str) -> bytes:
    if piece[0] != "\\" or len(piece) == 1:
        return piece.encode("utf-8", "surrogatepass")
    kind, digits = piece[1], piece[2:]
    if kind == "x" and digits:
        return bytes([int(digits, 16)])
    if kind in "01234567":
        return bytes([int(piece[1:], 8) & 0xFF])
    character = chr(int(digits, 16)) if kind == "u" and digits else _ESCAPED.get(kind, kind)
    return character.encode("utf-8", "surrogatepass")
