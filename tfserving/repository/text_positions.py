"""Where the fields of a configuration file stand: names, values and lines of protobuf text format or JSON.

protobuf's Python parser says where a syntax error is, but not where a field came from. This reader says the
latter and nothing else: it takes any text, complains about none, and is right about what a parser accepts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

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

# A ModelServerConfig is less deep; what is deeper is read as if it stood beside, so that no text is too deep.
_DEPTH = 50

_CLOSING = {"{": "}", "<": ">", "[": "]"}


@dataclass(frozen=True)
class Field:
    """A field of a message or a member of a JSON object.

    Attributes:
        name: as written, without quotes; "" for the whole text and for what stands in a list.
        line: line of the name, counted from 1.
        column: column of the name, counted from 1.
        value: the scalar, a string without its quotes and escapes; None for anything else.
        fields: what stands between braces, in order.
        items: what stands between brackets, in order; None where there are no brackets.
    """

    name: str
    line: int
    column: int
    value: str | None = None
    fields: tuple[Field, ...] = ()
    items: tuple[Field, ...] | None = None

    def all(self, name: str) -> tuple[Field, ...]:
        """The fields called `name`, in snake case; of a list its items. JSON's camel case is found too."""
        found: list[Field] = []
        for member in self.fields:
            if snake_case(member.name) == name:
                found.extend((member,) if member.items is None else member.items)
        return tuple(found)

    def first(self, name: str) -> Field:
        """The first field called `name`; this field, the next best place to point to, where there is none."""
        found = self.all(name)
        return found[0] if found else self

    def walk(self) -> Iterator[Field]:
        """This field and all below it, in order."""
        yield self
        for member in (*self.fields, *(self.items or ())):
            yield from member.walk()


def read(text: str) -> Field:
    """The whole text as one field without a name; a JSON text that is a list has `items`."""
    tokens = _Tokens(text)
    if tokens.kind == "[":
        items = _read_items(tokens)
        return Field("", 1, 1, items=items)
    if tokens.kind == "{":
        tokens.take()
    return Field("", 1, 1, fields=_read_fields(tokens, "}"))


def snake_case(name: str) -> str:
    """`modelConfigList` as `model_config_list`; what is in snake case stays as it is."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


@dataclass
class _Tokens:
    """The tokens of a text, one at a time: `kind` is "string", "word", "end" or the mark itself."""

    text: str
    kind: str = ""
    value: str = ""
    line: int = 1
    column: int = 1
    _at: int = 0
    _line_start: int = 0
    _next_line: int = 1
    depth: int = 0

    def __post_init__(self) -> None:
        self.take()

    def take(self) -> None:
        while match := _TOKEN.match(self.text, self._at):
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
            name, line, column = tokens.value, tokens.line, tokens.column
            tokens.take()
            while tokens.kind == ":":
                tokens.take()
            fields.append(_read_value(tokens, name, line, column))
        elif tokens.kind == "[":
            fields.append(_read_extension(tokens))
        else:
            tokens.take()
    tokens.take()
    return tuple(fields)


def _read_extension(tokens: _Tokens) -> Field:
    """`[type.googleapis.com/package.Message] { … }`, the text of an Any."""
    line, column = tokens.line, tokens.column
    name = "".join(item.value or "" for item in _read_items(tokens))
    while tokens.kind == ":":
        tokens.take()
    return _read_value(tokens, f"[{name}]", line, column)


def _read_value(tokens: _Tokens, name: str, line: int, column: int) -> Field:
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
            items.append(_read_value(tokens, "", tokens.line, tokens.column))
        else:
            tokens.take()
    tokens.take()
    return tuple(items)


def _unquoted(literal: str) -> str:
    body = literal[1:-1] if len(literal) > 1 and literal[-1] == literal[0] else literal[1:]
    if "\\" not in body:
        return body
    # Text format escapes bytes of UTF-8, JSON escapes units of UTF-16: both come together in bytes of UTF-8.
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
