"""What is wrong with a models.config, all of it at once, each with its line and its mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from tfserving.repository import config as models_config
from tfserving.repository import model_names, text_positions, versions
from tfserving.repository.config import PLATFORM, ConfigSyntaxError, Latest, Specific
from tfserving.repository.diagnostics import Entry, Kind, Problem, either, entries, errors_of
from tfserving.repository.lint_disk import Disk, disk_problems
from tfserving.repository.text_positions import Field
from tfserving.wire import messages

EXAMPLE = (
    'model_config_list { config { name: "NAME" base_path: "/models/NAME" model_platform: "tensorflow" } }'
)

_JSON_NOTE = Problem(
    Kind.NOTE,
    1,
    "this is JSON, which servers do not read",
    "it is converted here; print it as they read it: python -m tfserving.repository format --config FILE",
)


def lint(text: str, disk: Disk | None = None) -> tuple[Problem, ...]:
    """All problems of a configuration in text format or JSON, in the order of its lines.

    Without `disk` only what the text itself tells is looked at. Of syntax errors only the first one is found.
    """
    root = text_positions.read(text)
    json = models_config.looks_like_json(text)
    unknown = list(_unknown_fields(root, json))
    problems = [_JSON_NOTE, *unknown] if json else unknown
    parse = models_config.parse_json if json else models_config.parse_message
    try:
        message = parse(text, allow_unknown=bool(unknown))
    except ConfigSyntaxError as error:
        problems.append(_syntax_problem(error, json))
    else:
        problems.extend(_list_problems(message, root))
        models = entries(message, root, json=json)
        problems.extend(_duplicates(models))
        for entry in models:
            problems.extend(_entry_problems(entry, disk))
    return tuple(sorted(problems, key=lambda problem: problem.line))


def _syntax_problem(error: ConfigSyntaxError, json: bool) -> Problem:
    mend = (
        "mend the JSON there" if json else f"mend it; the file is protobuf text format, for example {EXAMPLE}"
    )
    where = f"column {error.column}: " if error.column else ""
    return Problem(Kind.ERROR, max(error.line, 1), f"{where}{error.reason.rstrip('.')}", mend)


def _unknown_fields(root: Field, json: bool) -> Iterator[Problem]:
    server = messages.ModelServerConfig.DESCRIPTOR
    if not json:
        yield from _unknown_below(root, server, json)
        return
    # In JSON the list of models may stand in several places, so its entries are looked for first.
    if not root.all("config"):
        for member in root.fields:
            if text_positions.snake_case(member.name) not in server.fields_by_name:
                yield _unknown(member, server)
    for entry in models_config.entries_of(root):
        yield from _unknown_below(entry, messages.ModelConfig.DESCRIPTOR, json)


def _unknown_below(place: Field, descriptor: Any, json: bool) -> Iterator[Problem]:
    for member in place.fields:
        name = text_positions.snake_case(member.name) if json else member.name
        field = descriptor.fields_by_name.get(name)
        if field is None:
            if not name.startswith("["):  # the message inside an Any, which is not ours to know
                yield _unknown(member, descriptor)
        elif field.message_type is not None and not (json and field.message_type.GetOptions().map_entry):
            for value in (member,) if member.items is None else member.items:
                yield from _unknown_below(value, field.message_type, json)


def _unknown(member: Field, descriptor: Any) -> Problem:
    known = descriptor.fields_by_name.keys()
    near = difflib.get_close_matches(text_positions.snake_case(member.name), known, n=1)
    if member.name in ("config", "model_config_list"):
        mend = "close the message before it with }"
    elif near:
        mend = f"write {near[0]}"
    else:
        mend = f"remove it; {descriptor.name} has {', '.join(known)}"
    return Problem(Kind.ERROR, member.line, f"there is no field {member.name!r} in {descriptor.name}", mend)


def _list_problems(message: Any, root: Field) -> Iterator[Problem]:
    if message.WhichOneof("config") == "custom_model_config":
        yield Problem(
            Kind.ERROR,
            root.first("custom_model_config").line,
            "custom_model_config needs a server that was built for it",
            f"list the models instead: {EXAMPLE}",
        )
    elif not message.model_config_list.config:
        yield Problem(
            Kind.ERROR,
            root.first("model_config_list").line,
            "no model is listed",
            f"write one config for each model: {EXAMPLE}",
        )


def _duplicates(models: list[Entry]) -> Iterator[Problem]:
    lines: dict[str, int] = {}
    for entry in models:
        at = entry.at.first("name")
        if entry.name and entry.name in lines:
            yield entry.error(
                at,
                f"the name is in use on line {lines[entry.name]}",
                "give each model its own; several versions of one model are for its model_version_policy",
            )
        lines.setdefault(entry.name, at.line)


def _entry_problems(entry: Entry, disk: Disk | None) -> Iterator[Problem]:
    yield from _name_problems(entry)
    yield from _platform_problems(entry)
    yield from _policy_problems(entry)
    yield from _label_problems(entry)
    base_path_problems = list(_base_path_problems(entry))
    yield from base_path_problems
    if disk is not None and not errors_of(base_path_problems):
        yield from disk_problems(entry, disk)


def _name_problems(entry: Entry) -> Iterator[Problem]:
    if not entry.name:
        yield entry.error(entry.at, "no request could ask for it", 'add name: "NAME"')
    elif not model_names.is_name(entry.name):
        yield entry.error(
            entry.at.first("name"), "the name would break a path or a URL", f"use {model_names.RULE}"
        )


def _platform_problems(entry: Entry) -> Iterator[Problem]:
    platform, old = entry.message.model_platform, entry.message.model_type
    mend = f'write model_platform: "{PLATFORM}"'
    if platform and old:
        at = entry.at.first("model_type")
        yield entry.error(at, "model_platform and the old model_type exclude each other", "remove model_type")
    elif (
        old
        == messages.ModelConfig.DESCRIPTOR.fields_by_name["model_type"]
        .enum_type.values_by_name["TENSORFLOW"]
        .number
    ):
        yield entry.note(entry.at.first("model_type"), "model_type is deprecated", f"{mend} instead")
    elif old:
        yield entry.error(entry.at.first("model_type"), "this model_type is not served", f"{mend} instead")
    elif not platform:
        yield entry.error(entry.at, "model_platform is missing", mend)
    elif platform != PLATFORM:
        yield entry.error(entry.at.first("model_platform"), f"model_platform {platform!r} is unknown", mend)


def _policy_problems(entry: Entry) -> Iterator[Problem]:
    if isinstance(entry.policy, Specific) and not entry.policy.versions:
        yield entry.error(
            entry.policy_at.first("specific"),
            "the specific policy lists no version, so none is served",
            "add versions: N, or remove model_version_policy to serve the newest",
        )
    latest = entry.message.model_version_policy.latest
    if isinstance(entry.policy, Latest) and latest.num_versions == 0:
        for policy in entry.policy_at.all("latest"):
            for written in policy.all("num_versions"):
                yield entry.note(written, "num_versions: 0 serves one version", "write how many are wanted")


def _label_problems(entry: Entry) -> Iterator[Problem]:
    lines: dict[str, int] = {}
    for label, at in entry.labels():
        if not label:
            yield entry.error(at, "a label is empty", 'name it, for example key: "stable"')
        elif label in lines:
            yield entry.error(
                at, f"label {label!r} is given on line {lines[label]} already", "keep one of the two"
            )
        elif not model_names.is_name(label):
            yield entry.note(at, f"label {label!r} cannot be asked for over REST", f"use {model_names.RULE}")
        lines.setdefault(label, at.line)

    listed = entry.policy.versions if isinstance(entry.policy, Specific) else ()
    for label, version, at in entry.labels_in_force():
        if listed and version not in listed:
            yield entry.error(
                at,
                f"label {label!r} stands for version {version}, which the specific policy does not list",
                f"add versions: {version} to it, or point the label to {either(listed)}",
            )


def _base_path_problems(entry: Entry) -> Iterator[Problem]:
    base_path, at = entry.base_path, entry.at.first("base_path")
    root = versions.MODELS_ROOT
    mend = f'write base_path: "{root}/{entry.name if model_names.is_name(entry.name) else "NAME"}"'
    if not base_path:
        yield entry.error(entry.at, "base_path is missing", mend)
    elif "://" in base_path:
        yield entry.error(at, f"base_path {base_path!r} is a URI; models are served from {root}", mend)
    elif not base_path.startswith("/"):
        yield entry.error(at, f"base_path {base_path!r} is relative, which servers refuse", mend)
    else:
        parts = [part for part in base_path.split("/") if part not in ("", ".")]
        if parts[:1] != [root.strip("/")]:
            yield entry.error(
                at, f"base_path {base_path!r} is not under {root}, where both engines look", mend
            )
        elif not parts[1:]:
            yield entry.error(at, f"base_path {base_path!r} holds models, not the versions of one", mend)
        elif not all(model_names.is_name(part) for part in parts[1:]):
            yield entry.error(at, f"base_path {base_path!r} would break a path or a command", mend)
