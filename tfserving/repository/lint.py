"""All errors in a models.config, each with its line and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfserving.repository import model_names, text_positions
from tfserving.repository.config import (
    PLATFORM,
    TENSORFLOW_TYPE,
    Latest,
    Specific,
    base_path_hint,
    find_entry_errors,
)
from tfserving.repository.config_text import ConfigSyntaxError, find_entries, is_json, read_message
from tfserving.repository.diagnostics import Diagnostic, Entry, Severity, list_numbers, read_entries
from tfserving.repository.lint_disk import lint_versions
from tfserving.repository.model_names import quote
from tfserving.repository.text_positions import Field
from tfserving.repository.versions import MODELS_ROOT, local_path
from tfserving.wire import messages

EXAMPLE = (
    'model_config_list { config { name: "NAME" base_path: "/models/NAME" model_platform: "tensorflow" } }'
)

_JSON_NOTE = Diagnostic(
    Severity.NOTE, 1, "servers do not read JSON", "convert the file: tfserving format --config FILE"
)


def lint(text: str, models_dir: Path | None = None) -> tuple[Diagnostic, ...]:
    """All diagnostics of a configuration in text format or JSON, in the order of its lines.

    Of several syntax errors, only the first one is reported.

    Args:
        text: content of the file.
        models_dir: the model repository, `/models` in a base_path; None checks only the text.
    """
    root = text_positions.read(text)
    json = is_json(text)
    unknown = list(_lint_fields(root, json))
    found = [_JSON_NOTE, *unknown] if json else unknown
    try:
        message = read_message(text, allow_unknown=bool(unknown))
    except ConfigSyntaxError as error:
        if error.hint:  # a wrong character also makes fields look unknown
            found = [_JSON_NOTE] if json else []
        found.append(_syntax_error(error, json))
    else:
        found.extend(_lint_list(message, root))
        entries = read_entries(message, root, json=json)
        found.extend(_lint_duplicates(entries))
        for entry in entries:
            found.extend(_lint_entry(entry, models_dir))
    return tuple(sorted(found, key=lambda diagnostic: diagnostic.line))


def _syntax_error(error: ConfigSyntaxError, json: bool) -> Diagnostic:
    hint = error.hint or (
        "fix the JSON" if json else f"fix it; the file is protobuf text format, for example {EXAMPLE}"
    )
    column = f"column {error.column}: " if error.column else ""
    return Diagnostic(Severity.ERROR, max(error.line, 1), f"{column}{error.reason.rstrip('.')}", hint)


def _lint_fields(root: Field, json: bool) -> Iterator[Diagnostic]:
    server = messages.ModelServerConfig.DESCRIPTOR
    if not json:
        yield from _lint_fields_below(root, server, json)
        return
    # In JSON, the list of models can have several places, so find its entries first.
    if not root.all("config"):
        for member in root.fields:
            if text_positions.snake_case(member.name) not in server.fields_by_name:
                yield _unknown_field(member, server)
    for entry in find_entries(root):
        yield from _lint_fields_below(entry, messages.ModelConfig.DESCRIPTOR, json)


def _lint_fields_below(parent: Field, descriptor: Any, json: bool) -> Iterator[Diagnostic]:
    for member in parent.fields:
        name = text_positions.snake_case(member.name) if json else member.name
        field = descriptor.fields_by_name.get(name)
        if field is None:
            if not name.startswith("["):  # the message in an Any, whose fields are not known here
                yield _unknown_field(member, descriptor)
        elif field.message_type is not None and not (json and field.message_type.GetOptions().map_entry):
            for value in (member,) if member.items is None else member.items:
                yield from _lint_fields_below(value, field.message_type, json)


def _unknown_field(member: Field, descriptor: Any) -> Diagnostic:
    known = descriptor.fields_by_name.keys()
    similar = difflib.get_close_matches(text_positions.snake_case(member.name), known, n=1)
    if member.name in ("config", "model_config_list"):
        hint = "close the message before it with }"
    elif similar:
        hint = f"write {similar[0]}"
    else:
        hint = f"remove it; the fields of {descriptor.name} are {', '.join(known)}"
    message = f"{descriptor.name} has no field {quote(member.name)}"
    return Diagnostic(Severity.ERROR, member.line, message, hint)


def _lint_list(message: Any, root: Field) -> Iterator[Diagnostic]:
    if message.WhichOneof("config") == "custom_model_config":
        line = root.first("custom_model_config").line
        hint = f"list the models instead: {EXAMPLE}"
        yield Diagnostic(Severity.ERROR, line, "custom_model_config is not supported", hint)
    elif not message.model_config_list.config:
        line = root.first("model_config_list").line
        hint = f"write one config for each model: {EXAMPLE}"
        yield Diagnostic(Severity.ERROR, line, "no model is listed", hint)


def _lint_duplicates(entries: list[Entry]) -> Iterator[Diagnostic]:
    lines: dict[str, int] = {}
    for entry in entries:
        at = entry.at.first("name")
        if entry.name and entry.name in lines:
            yield entry.error(
                at,
                f"is already listed on line {lines[entry.name]}",
                "use another name; to serve several versions of one model, use model_version_policy",
            )
        lines.setdefault(entry.name, at.line)


def _lint_entry(entry: Entry, models_dir: Path | None) -> Iterator[Diagnostic]:
    yield from _lint_name(entry)
    if entry.message.model_type == TENSORFLOW_TYPE and not entry.message.model_platform:
        hint = f'write model_platform: "{PLATFORM}" instead'
        yield entry.note(entry.at.first("model_type"), "uses the deprecated model_type", hint)
    yield from _lint_policy(entry)
    yield from _lint_labels(entry)
    errors = list(find_entry_errors(entry.message))
    for field, message, hint in errors:
        yield entry.error(entry.at.first(field), message, hint)
    base_path = list(_lint_base_path(entry))
    yield from base_path
    if models_dir and not base_path and all(error.field != "base_path" for error in errors):
        yield from lint_versions(entry, models_dir)


def _lint_name(entry: Entry) -> Iterator[Diagnostic]:
    if not entry.name:
        yield entry.error(entry.at, "cannot receive requests", 'add name: "NAME"')
    elif not model_names.is_name(entry.name):
        yield entry.error(entry.at.first("name"), "has an invalid name", model_names.RULE)


def _lint_policy(entry: Entry) -> Iterator[Diagnostic]:
    if isinstance(entry.policy, Specific) and not entry.policy.versions:
        yield entry.error(
            entry.policy_at.first("specific"),
            "has a specific policy without versions, so none is served",
            "add versions: N, or remove model_version_policy to serve the newest",
        )
    latest = entry.message.model_version_policy.latest
    if isinstance(entry.policy, Latest) and latest.num_versions == 0:
        for policy in entry.policy_at.all("latest"):
            for written in policy.all("num_versions"):
                yield entry.note(
                    written, "serves one version with num_versions: 0", "write how many versions to serve"
                )


def _lint_labels(entry: Entry) -> Iterator[Diagnostic]:
    lines: dict[str, int] = {}
    for label, at in entry.labels():
        if not label:
            yield entry.error(at, "has an empty label", 'name it, for example key: "stable"')
        elif label in lines:
            yield entry.error(at, f"repeats label {quote(label)} of line {lines[label]}", "keep one of them")
        elif not model_names.is_name(label):
            message = f"has label {quote(label)}, which REST requests cannot name"
            yield entry.note(at, message, model_names.RULE)
        lines.setdefault(label, at.line)

    listed = entry.policy.versions if isinstance(entry.policy, Specific) else ()
    for label, version, at in entry.effective_labels():
        if listed and version not in listed:
            yield entry.error(
                at,
                f"has label {quote(label)} for version {version}, which the specific policy does not list",
                f"add versions: {version} to the policy, or use a listed version ({list_numbers(listed)})",
            )


def _lint_base_path(entry: Entry) -> Iterator[Diagnostic]:
    """Base paths that tensorflow_model_server accepts, and this toolkit does not serve from."""
    base_path, at = entry.base_path, entry.at.first("base_path")
    path = local_path(base_path)
    if path is None or not path.startswith("/"):
        return  # see `find_entry_errors`
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if parts[:1] != [MODELS_ROOT.strip("/")]:
        message = f"which is not under {MODELS_ROOT}"
    elif not parts[1:]:
        message = "which contains all models, not the versions of one"
    elif not all(model_names.is_name(part) for part in parts[1:]):
        message = "which contains an invalid name"
    else:
        return
    yield entry.error(at, f"has base_path {quote(base_path)}, {message}", base_path_hint(entry.name))
