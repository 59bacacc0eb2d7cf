"""Edits of a models.config that leave everything outside the edited fields unchanged, byte for byte.

Every edit is made twice, in the text and in the message that the text stands for. If the new text does not
stand for the new message, it is not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from google.protobuf import text_encoding

from tfserving.errors import ConfigError, FailedPreconditionError, NotFoundError
from tfserving.repository import text_positions
from tfserving.repository.config import All, Latest, ServerConfig, Specific, VersionPolicy, from_message
from tfserving.repository.config_text import is_json, read_config_text, read_message
from tfserving.repository.diagnostics import Entry, read_entries
from tfserving.repository.model_names import check_name, quote
from tfserving.repository.text_positions import Field

_LINE_END = re.compile(r"[ \t]*[,;]?[ \t]*(#[^\r\n]*)?(?=\r?\n|\Z)")
_SEPARATOR = re.compile(r"[ \t]*[,;]")


def read_config_file(path: Path) -> str:
    """The text of a models.config; `encode_config` returns its bytes.

    Raises:
        ConfigError: the file is not readable, or it is JSON, which servers do not read.
    """
    try:
        text = read_config_text(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist; pass the models.config with --config, or create one: "
            "models/models.config is an example"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if is_json(text):
        raise ConfigError(
            f"{path} is JSON, which servers do not read; convert it: tfserving format --config {path}"
        )
    return text


def encode_config(text: str) -> bytes:
    """The bytes of a text of `read_config_file`, also those that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def parse_config_file(text: str, path: Path) -> ServerConfig:
    """The models of a models.config.

    Raises:
        ConfigError: a server would reject the text.
    """
    try:
        return from_message(read_message(text))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; run tfserving check", model=error.model) from error


def set_policy(text: str, model: str, policy: VersionPolicy) -> str:
    """The text with this version policy for `model`.

    Raises:
        NotFoundError: the text does not contain the model.
        ConfigError: see `_edit`.
    """

    def change(message: Any) -> None:
        message.ClearField("model_version_policy")
        _fill_policy(message.model_version_policy, policy)

    return _edit(text, model, lambda entry: _write_policy(text, entry, policy), change)


def set_label(text: str, model: str, label: str, version: int) -> str:
    """The text with `label` of `model` on `version`; raises as `set_policy` does."""

    def change(message: Any) -> None:
        message.version_labels[label] = version

    return _edit(text, model, lambda entry: _write_label(text, entry, label, version), change)


def remove_label(text: str, model: str, label: str) -> str:
    """The text without `label` of `model`; raises as `set_policy` does."""

    def write(entry: Entry) -> str:
        new = text
        for name, at in reversed(entry.labels()):
            if name == label:
                new = _remove(new, at)
        return new

    def change(message: Any) -> None:
        message.version_labels.pop(label, None)

    return _edit(text, model, write, change)


def add_model(text: str, name: str, base_path: str, policy: VersionPolicy | None) -> str:
    """The text with one more model, after the others; None for the server's default policy.

    Raises:
        InvalidInputError: `name` is not a valid name.
        FailedPreconditionError: the text contains the model already.
        ConfigError: see `_edit`.
    """
    check_name(name)
    message = read_message(text)
    if any(config.name == name for config in message.model_config_list.config):
        raise FailedPreconditionError(
            f"model {quote(name)} is in the config already; `tfserving promote {name} VERSION` changes what "
            "callers get",
            model=name,
        )
    root = text_positions.read(text)
    fields = [f"name: {_quoted(name)}", f"base_path: {_quoted(base_path)}", 'model_platform: "tensorflow"']
    if policy is not None:
        fields.append(f"model_version_policy {_policy_text(policy)}")
    expected = type(message)()
    expected.CopyFrom(message)
    expected.model_config_list.SetInParent()
    added = expected.model_config_list.config.add()
    added.name, added.base_path, added.model_platform = name, base_path, "tensorflow"
    if policy is not None:
        _fill_policy(added.model_version_policy, policy)
    return _checked(_write_model(text, root, fields), expected)


def remove_model(text: str, name: str) -> str:
    """The text without a model; raises as `set_policy` does."""
    message = read_message(text)
    entry = _find(text, message, name)
    expected = type(message)()
    expected.CopyFrom(message)
    configs = expected.model_config_list.config
    del configs[next(index for index, config in enumerate(configs) if config.name == name)]
    return _checked(_remove(text, entry.at), expected)


def _edit(text: str, model: str, write: Callable[[Entry], str], change: Callable[[Any], None]) -> str:
    """The text that `write` returns, if it stands for the message that `change` makes.

    Raises:
        NotFoundError: the text does not contain the model.
        ConfigError: the text does not parse, or is written in a way that cannot be edited.
    """
    message = read_message(text)
    entry = _find(text, message, model)
    expected = type(message)()
    expected.CopyFrom(message)
    change(next(config for config in expected.model_config_list.config if config.name == model))
    return text if expected == message else _checked(write(entry), expected)


def _checked(text: str, expected: Any) -> str:
    try:
        if read_message(text) == expected:
            return text
    except ConfigError:
        pass
    raise ConfigError(
        "the config is written in a way that this command cannot edit; edit it manually, or rewrite it with "
        "`tfserving format`, which removes comments"
    )


def _find(text: str, message: Any, model: str) -> Entry:
    entries = read_entries(message, text_positions.read(text), json=False)
    for entry in entries:
        if entry.name == model:
            return entry
    names = ", ".join(entry.name for entry in entries) or "none"
    raise NotFoundError(
        f"the config has no model {quote(model)} (its models: {names}); add it with `tfserving add`",
        model=model,
    )


def _fill_policy(message: Any, policy: VersionPolicy) -> None:
    if isinstance(policy, All):
        message.all.SetInParent()
    elif isinstance(policy, Latest):
        message.latest.num_versions = policy.num_versions
    else:
        message.specific.versions.extend(policy.versions)
        message.specific.SetInParent()


def _policy_text(policy: VersionPolicy) -> str:
    return f"{{ {_choice_text(policy)} }}"


def _choice_text(policy: VersionPolicy) -> str:
    if isinstance(policy, All):
        return "all {}"
    if isinstance(policy, Latest):
        return f"latest {{ num_versions: {policy.num_versions} }}"
    return f"specific {{ {' '.join(f'versions: {version}' for version in policy.versions)} }}"


def _write_policy(text: str, entry: Entry, policy: VersionPolicy) -> str:
    policies = entry.at.all("model_version_policy")
    if not policies:
        last = [at for at in entry.at.fields if at.name != "version_labels"][-1:] or [entry.at.fields[-1]]
        return _insert_after(text, last[0], f"model_version_policy {_policy_text(policy)}")
    (at,) = policies[-1:]
    specific = at.all("specific")
    if isinstance(policy, Specific) and specific and specific[-1].all("versions"):
        return _write_versions(text, specific[-1], policy.versions)
    if len(at.fields) == 1:
        (choice,) = at.fields
        return _replace(text, choice.start, choice.end, _choice_text(policy))
    return _replace(text, at.value_start, at.end, _policy_text(policy))


def _write_versions(text: str, specific: Field, versions: tuple[int, ...]) -> str:
    """Change the numbers of as many fields as there are; then add or remove fields at the end."""
    listed = [member for member in specific.fields if member.items is not None]
    if listed or not versions:
        return _replace(text, specific.value_start, specific.end, f"{{ {_versions_text(versions)} }}")
    fields = specific.all("versions")
    edits: list[tuple[int, int, str]] = []
    for field, version in zip(fields, versions, strict=False):
        if text[field.value_start : field.end] != str(version):
            edits.append((field.value_start, field.end, str(version)))
    for field in fields[len(versions) :]:
        edits.append((*_span_to_remove(text, field), ""))
    for version in reversed(versions[len(fields) :]):
        text = _insert_after(text, fields[-1], f"versions: {version}")
    for start, end, new in sorted(edits, reverse=True):
        text = _replace(text, start, end, new)
    return text


def _versions_text(versions: Iterable[int]) -> str:
    return " ".join(f"versions: {version}" for version in versions)


def _write_label(text: str, entry: Entry, label: str, version: int) -> str:
    labels = [at for name, at in entry.labels() if name == label]
    if not labels:
        written = entry.at.all("version_labels")
        new = f"version_labels {{ key: {_quoted(label)} value: {version} }}"
        last = entry.at.fields[-1]
        if written and not any(at.items is not None for at in entry.at.fields if at.name == "version_labels"):
            last = written[-1]
        return _insert_after(text, last, new)
    values = labels[-1].all("value")
    if values:
        return _replace(text, values[-1].value_start, values[-1].end, str(version))
    key = labels[-1].first("key")
    return _replace(text, key.end, key.end, f" value: {version}")


def _write_model(text: str, root: Field, fields: list[str]) -> str:
    one_line = f"config {{ {' '.join(fields)} }}"
    newline = _newline(text)
    lists = root.all("model_config_list")
    if not lists:
        before = "" if not text or text.endswith("\n") else newline
        return (
            f"{text}{before}model_config_list {{{newline}{_block(fields, '  ', newline)}{newline}}}{newline}"
        )
    models = lists[-1]
    configs = [field for field in models.fields if field.name == "config"]
    if not configs:
        start = models.value_start + 1
        if "\n" not in text[models.value_start : models.end]:
            inside = f"{newline}{_block(fields, '  ', newline)}{newline}"
            # An empty list on one line, unless a comment or something else follows on it.
            return _replace(text, start, models.end - 1, inside)
        return _replace(text, start, start, f"{newline}{_block(fields, '  ', newline)}")
    last = configs[-1]
    indent = _line_indent(text, last.start)
    if last.items is not None or indent is None:
        return _insert_after(text, last, one_line)
    return _insert_after(text, last, _block(fields, indent, newline)[len(indent) :])


def _block(fields: Iterable[str], indent: str, newline: str) -> str:
    lines = [f"{indent}config {{", *(f"{indent}  {field}" for field in fields), f"{indent}}}"]
    return newline.join(lines)


def _insert_after(text: str, field: Field, new: str) -> str:
    """Insert a field after another: on the next line with the same indent, or behind it on the same line."""
    end = field.end
    if separator := _SEPARATOR.match(text, end):
        end = separator.end()
    indent = _line_indent(text, field.start)
    line = _LINE_END.match(text, field.end)
    if indent is None or line is None:
        return _replace(text, end, end, f" {new}")
    end = line.end()
    return _replace(text, end, end, f"{_newline(text)}{indent}{new}")


def _remove(text: str, field: Field) -> str:
    return _replace(text, *_span_to_remove(text, field), "")


def _span_to_remove(text: str, field: Field) -> tuple[int, int]:
    """The offsets of a field with its separator; with its line if it is alone on it."""
    start, end = field.start, field.end
    if separator := _SEPARATOR.match(text, end):
        end = separator.end()
    line_start = text.rfind("\n", 0, start) + 1
    rest = re.compile(r"[ \t\r]*(\n|\Z)").match(text, end)
    if rest and not text[line_start:start].strip():
        return line_start, rest.end()
    before = text[:start].rstrip(" \t")
    if field.name == "" and end == field.end and before.endswith(","):  # the last item of a list
        before = before[:-1]
    return len(before), end


def _line_indent(text: str, position: int) -> str | None:
    """The white space before `position` on its line; None if anything else is there."""
    before = text[text.rfind("\n", 0, position) + 1 : position]
    return before if not before.strip(" \t") else None


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _replace(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _quoted(text: str) -> str:
    return f'"{text_encoding.CEscape(text.encode(), as_utf8=False)}"'
