"""The syntax of models.config: protobuf text format of `tensorflow.serving.ModelServerConfig`, or JSON.

Servers read text format only. The tools read JSON as well, since many configurations are written that way.
"""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from typing import Any

from google.protobuf import json_format, text_format

from tfserving.errors import ConfigError
from tfserving.repository import text_positions
from tfserving.repository.model_names import quote
from tfserving.repository.text_positions import Field
from tfserving.wire import messages

# lib/checks.sh has the same limit. A file without an end, such as a device, must not fill the memory.
MAX_BYTES = 16 * 1024 * 1024

# Pipes that are open already, so that reading cannot block in open(2).
_STANDARD_INPUT = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")

_BYTE_ORDER_MARK = "\ufeff"
# As `read_config_text` decodes them.
_UTF_16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")
_SURROGATE = re.compile("[\ud800-\udfff]")

# Comments, strings, and characters outside both.
_NOT_ASCII = re.compile(
    r"""\#[^\n]* | "(?:[^"\\\n]|\\.)*"? | '(?:[^'\\\n]|\\.)*'? | [^\x00-\x7f]""", re.VERBOSE
)

# tensorflow_model_server's message begins like this.
_TEXT_ERROR = "Error parsing text-format tensorflow.serving.ModelServerConfig: "
_JSON_ERROR = "Error parsing JSON of tensorflow.serving.ModelServerConfig: "


class ConfigSyntaxError(ConfigError):
    """A text that is not a ModelServerConfig.

    Attributes:
        reason: what is wrong, without the position.
        line, column: the position, counted from 1; 0 if the parser does not report it.
        hint: what to do; "" if only the reason is known.
    """

    def __init__(
        self, reason: str, line: int, column: int, kind: str, origin: str = "", hint: str = ""
    ) -> None:
        what = f"{reason}; {hint}" if hint else reason
        super().__init__(f"{kind}{line}:{column}: {what}" + (f" ({origin})" if origin else ""))
        self.reason = reason
        self.line = line
        self.column = column
        self.hint = hint


def read_config_text(path: str | os.PathLike[str]) -> str:
    """The content of a configuration file; bytes that are not UTF-8, as in comments, become lone surrogates.

    Raises:
        OSError: the file is not readable.
        ConfigError: it is not a regular file or standard input, or it is larger than `MAX_BYTES`.
    """
    return _read_bytes(path).decode("utf-8", "surrogateescape")


def is_json(text: str) -> bool:
    """Whether a configuration is written in JSON: in text format, it begins with the name of a field."""
    return text.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] in ("{", "[")


def read_message(text: str, *, allow_unknown: bool = False) -> Any:
    """The ModelServerConfig message in a text of either format; `allow_unknown` skips unknown fields.

    Raises:
        ConfigSyntaxError: the text does not parse.
    """
    return (_parse_json if is_json(text) else parse_text_format)(text, allow_unknown=allow_unknown)


def parse_text_format(text: str, *, origin: str = "", allow_unknown: bool = False) -> Any:
    """The ModelServerConfig message in text format; see `read_message`. `origin` names the file in errors."""
    _check_characters(text, origin)
    message = messages.ModelServerConfig()
    try:
        return text_format.Parse(text, message, allow_unknown_field=allow_unknown)
    except text_format.ParseError as error:
        line, column = error.GetLine() or 0, error.GetColumn() or 0
        reason = re.sub(r"^\d+(:\d+)? : ", "", str(error))
        quoted = f"'{text.split(chr(10))[line - 1]}': " if line else ""  # the whole line, which may be long
        reason = reason.removeprefix(quoted)
        if is_json(text):
            reason += " The file is JSON; convert it: tfserving format --config FILE"
        raise ConfigSyntaxError(reason, line, column, _TEXT_ERROR, origin) from error
    except RecursionError as error:
        raise ConfigSyntaxError("Messages are nested too deeply.", 0, 0, _TEXT_ERROR, origin) from error


def read_text_file(path: str | os.PathLike[str], message: Any, label: str) -> Any:
    """Parse a file in protobuf text format into `message` and return it; `label` names the file in errors.

    Raises:
        ConfigError: the file cannot be read or does not parse, is not a regular file, or is larger than
            `MAX_BYTES`.
    """
    try:
        return text_format.Parse(_read_bytes(path).decode("utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigError(f"{label}: {error}") from error


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    # A FIFO without a writer would block in open(2).
    mode = stat.S_IFMT(os.stat(path).st_mode)
    if mode not in (stat.S_IFREG, stat.S_IFDIR) and os.fspath(path) not in _STANDARD_INPUT:
        raise ConfigError(f"{os.fspath(path)} is not a regular file; give the path of one")
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{os.fspath(path)} is too large for a config (at most {MAX_BYTES} bytes)")
    return content


def format_message(message: Any) -> str:
    """A ModelServerConfig message in text format."""
    return text_format.MessageToString(message, as_utf8=True)


def find_entries(root: Field) -> tuple[Field, ...]:
    """The fields that hold one model each, in the order of the message."""
    if root.items is not None:  # a JSON list of models
        return root.items
    entries: list[Field] = []
    for models in (*root.all("model_config_list"), root):
        # If model_config_list is a JSON list of models, each of its items is a model.
        entries.extend(models.all("config") or ([models] if models.name == "" and models is not root else []))
    return tuple(entries)


def _parse_json(text: str, *, allow_unknown: bool) -> Any:
    """The ModelServerConfig message in proto3 JSON, with names in snake case or camel case.

    The list of models may also be the whole text, or the value of `model_config_list`.
    """
    _check_encoding(text, _JSON_ERROR)
    if not_utf_8 := _SURROGATE.search(text):
        reason = f"{_describe(not_utf_8[0])} is not UTF-8"
        raise _error_at(text, not_utf_8.start(), reason, _JSON_ERROR, hint="save the file as UTF-8")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigSyntaxError(error.msg, error.lineno, error.colno, _JSON_ERROR) from error
    except RecursionError as error:
        raise ConfigSyntaxError("values are nested too deeply", 0, 0, _JSON_ERROR) from error
    root = text_positions.read(text)
    _reject_repeated_members(root)
    try:
        return json_format.ParseDict(
            _with_model_config_list(value), messages.ModelServerConfig(), ignore_unknown_fields=allow_unknown
        )
    except json_format.ParseError as error:
        entry = re.search(r"\bconfig\[(\d+)\]", str(error))
        entries = find_entries(root)
        line = entries[int(entry[1])].line if entry and int(entry[1]) < len(entries) else 1
        raise ConfigSyntaxError(str(error), line, 1, _JSON_ERROR) from error


def _check_characters(text: str, origin: str) -> None:
    """Reject characters that the parser of a server rejects, and Python's accepts.

    Raises:
        ConfigSyntaxError: a byte order mark, a character outside ASCII that is neither in a string nor in
            a comment, or a string that is not UTF-8.
    """
    _check_encoding(text, _TEXT_ERROR, origin)
    for match in _NOT_ASCII.finditer(text):
        if match[0].startswith("#"):
            continue
        if match[0][0] not in "\"'":
            # tensorflow_model_server says the same about the first byte.
            first = match[0].encode("utf-8", "surrogateescape")[0]
            what = f"{_describe(match[0])} outside strings and comments"
            reason = f"Interpreting non ascii codepoint {first}: {what}"
            hint = "replace it with a space" if match[0].isspace() else "write it in ASCII, or remove it"
            raise _error_at(text, match.start(), reason, _TEXT_ERROR, origin, hint)
        if inside := _SURROGATE.search(match[0]):
            reason = f"a string is not UTF-8 at {_describe(inside[0])}"
            position = match.start() + inside.start()
            raise _error_at(text, position, reason, _TEXT_ERROR, origin, "save the file as UTF-8")


def _check_encoding(text: str, kind: str, origin: str = "") -> None:
    if text.startswith(_BYTE_ORDER_MARK):
        reason, hint = "the file begins with a byte order mark", "save it as UTF-8 without one"
    elif text.startswith(_UTF_16_MARKS) or "\0" in text[:2]:
        reason, hint = "the file is UTF-16", "save it as UTF-8 without a byte order mark"
    else:
        return
    raise ConfigSyntaxError(reason, 1, 1, kind, origin, hint)


def _describe(character: str) -> str:
    """A character as `U+00A0 (NO-BREAK SPACE)`, or a byte that is not UTF-8 as `byte 0xFF`."""
    if _SURROGATE.match(character):
        return f"byte 0x{ord(character) & 0xFF:02X}"
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'unnamed')})"


def _error_at(
    text: str, position: int, reason: str, kind: str, origin: str = "", hint: str = ""
) -> ConfigSyntaxError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return ConfigSyntaxError(reason, line, column, kind, origin, hint)


def _reject_repeated_members(root: Field) -> None:
    """Reject a name that occurs twice in one JSON object: parsers drop one of the two silently."""
    for container in root.walk():
        seen = set()
        for member in container.fields:
            if member.name in seen:
                reason = f"{quote(member.name)} occurs twice in one object"
                raise ConfigSyntaxError(reason, member.line, member.column, _JSON_ERROR)
            seen.add(member.name)


def _with_model_config_list(value: Any) -> Any:
    """Move a list of models to where the message has it."""
    if isinstance(value, list):
        return {"model_config_list": {"config": value}}
    if set(value) == {"config"}:
        return {"model_config_list": value}
    return {
        name: {"config": models}
        if isinstance(models, list) and text_positions.snake_case(name) == "model_config_list"
        else models
        for name, models in value.items()
    }
