"""models.config: which models a server serves, which versions of each, and under which labels.

The file is protobuf text format of `tensorflow.serving.ModelServerConfig`. A server takes nothing else;
`from_json` is for the tools, since many write the file as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format, text_format

from tfserving.errors import ConfigError
from tfserving.repository import text_positions
from tfserving.repository.text_positions import Field
from tfserving.wire import messages

PLATFORM = "tensorflow"

SYNTAX_ERROR = "Error parsing text-format tensorflow.serving.ModelServerConfig: "


@dataclass(frozen=True)
class Latest:
    """Serves the `num_versions` largest versions that are there; 0 counts as 1, as in the real server."""

    num_versions: int = 1

    def select(self, versions: Iterable[int]) -> tuple[int, ...]:
        """Of the versions that are there, those to serve, ascending."""
        return tuple(sorted(set(versions))[-max(self.num_versions, 1) :])


@dataclass(frozen=True)
class All:
    """Serves every version that is there."""

    def select(self, versions: Iterable[int]) -> tuple[int, ...]:
        """Of the versions that are there, those to serve, ascending."""
        return tuple(sorted(set(versions)))


@dataclass(frozen=True)
class Specific:
    """Serves the listed versions as far as they are there."""

    versions: tuple[int, ...]

    def select(self, versions: Iterable[int]) -> tuple[int, ...]:
        """Of the versions that are there, those to serve, ascending."""
        return tuple(sorted(set(versions) & set(self.versions)))


VersionPolicy = Latest | All | Specific


@dataclass(frozen=True)
class ModelConfig:
    """One model of the list.

    Attributes:
        name: what requests call it.
        base_path: the directory of its versions, `/models/NAME` on both engines.
        policy: which versions are served; the newest one when the file names no policy.
        labels: names for versions, such as `{"stable": 1}`.
        platform: "tensorflow", the only one that servers know.
        logging: LoggingConfig, serialized; kept so that writing a config does not lose it.
        line: where the model's entry begins, 0 when it came from no file. Not part of equality.
    """

    name: str
    base_path: str
    policy: VersionPolicy = field(default_factory=Latest)
    labels: Mapping[str, int] = field(default_factory=dict)
    platform: str = PLATFORM
    logging: bytes = b""
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class ServerConfig:
    """The models of a server, in the order of the file."""

    models: tuple[ModelConfig, ...] = ()

    def model(self, name: str) -> ModelConfig | None:
        """The model called `name`, None where there is none."""
        return next((model for model in self.models if model.name == name), None)


class ConfigSyntaxError(ConfigError):
    """A text that is no ModelServerConfig.

    Attributes:
        line, column: where, counted from 1; 0 where the parser does not tell.
        reason: what is wrong there, without the place.
    """

    def __init__(
        self, reason: str, line: int, column: int, origin: str = "", kind: str = SYNTAX_ERROR
    ) -> None:
        super().__init__(f"{kind}{line}:{column}: {reason}" + (f" ({origin})" if origin else ""))
        self.reason = reason
        self.line = line
        self.column = column


def parse(text: str, origin: str = "") -> ServerConfig:
    """Reads protobuf text format, as a server does. `origin` names the file in errors.

    Raises:
        ConfigError: the text does not parse, or the real server would refuse the configuration (see
            `from_message`). The message for a text that does not parse begins as the real server's does, with
            `Error parsing text-format tensorflow.serving.ModelServerConfig: LINE:COLUMN: `.
    """
    try:
        message = parse_message(text)
    except ConfigSyntaxError as error:
        reason = error.reason
        if looks_like_json(text):
            reason += " It is JSON: convert it with python -m tfserving.repository format --config FILE"
        raise ConfigSyntaxError(reason, error.line, error.column, origin) from error
    try:
        return from_message(message, lines_of(text_positions.read(text)))
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}" if origin else str(error), model=error.model) from error


def from_json(text: str) -> ServerConfig:
    """Reads the JSON that `parse_json` reads; raises as it and `from_message` do."""
    return from_message(parse_json(text), lines_of(text_positions.read(text)))


def looks_like_json(text: str) -> bool:
    """Whether a configuration is written as JSON: text format of a ModelServerConfig begins with a name."""
    return text.lstrip()[:1] in ("{", "[")


def parse_message(text: str, *, allow_unknown: bool = False) -> Any:
    """The ModelServerConfig that a text is, whatever it means; `allow_unknown` skips unknown fields.

    Raises:
        ConfigSyntaxError: the text does not parse.
    """
    message = messages.ModelServerConfig()
    try:
        return text_format.Parse(text, message, allow_unknown_field=allow_unknown)
    except text_format.ParseError as error:
        line, column = error.GetLine() or 0, error.GetColumn() or 0
        reason = re.sub(r"^\d+(:\d+)? : ", "", str(error))
        quoted = f"'{text.split(chr(10))[line - 1]}': " if line else ""  # the whole line, which may be long
        raise ConfigSyntaxError(reason.removeprefix(quoted), line, column) from error
    except RecursionError as error:
        raise ConfigSyntaxError("Messages are nested too deeply.", 0, 0) from error


def parse_json(text: str, *, allow_unknown: bool = False) -> Any:
    """The ModelServerConfig that a JSON text is, whatever it means: proto3 JSON in snake or camel case.

    The list of models may also stand alone, or be the value of `model_config_list` itself, as people do.

    Raises:
        ConfigSyntaxError: no JSON, or JSON that is no ModelServerConfig.
    """
    kind = "Error parsing JSON of tensorflow.serving.ModelServerConfig: "
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigSyntaxError(error.msg, error.lineno, error.colno, kind=kind) from error
    except RecursionError as error:
        raise ConfigSyntaxError("values are nested too deeply", 0, 0, kind=kind) from error
    value = _with_model_config_list(value)
    if not isinstance(value, dict):
        raise ConfigSyntaxError("an object or a list of models is expected", 1, 1, kind=kind)
    root = text_positions.read(text)
    twice = repeated_member(root)
    if twice is not None:
        raise ConfigSyntaxError(
            f"{twice.name!r} stands twice in one object", twice.line, twice.column, kind=kind
        )
    try:
        return json_format.ParseDict(value, messages.ModelServerConfig(), ignore_unknown_fields=allow_unknown)
    except json_format.ParseError as error:
        entry = re.search(r"\bconfig\[(\d+)\]", str(error))
        lines = lines_of(root)
        line = lines[int(entry[1])] if entry and int(entry[1]) < len(lines) else 1
        raise ConfigSyntaxError(str(error), line, 1, kind=kind) from error


def repeated_member(root: Field) -> Field | None:
    """The first member of a JSON object whose name the object had before: parsers drop one silently."""
    for container in root.walk():
        seen = set()
        for member in container.fields:
            if member.name in seen:
                return member
            seen.add(member.name)
    return None


def entries_of(root: Field) -> tuple[Field, ...]:
    """The fields that are one model each, in the order of the message."""
    if root.items is not None:  # a JSON list of models
        return root.items
    entries: list[Field] = []
    for models in (*root.all("model_config_list"), root):
        # A JSON list of models as the value of model_config_list: each of its items is a model.
        entries.extend(models.all("config") or ([models] if models.name == "" and models is not root else []))
    return tuple(entries)


def lines_of(root: Field) -> tuple[int, ...]:
    """The line on which each model begins, in the order of the message."""
    return tuple(entry.line for entry in entries_of(root))


def from_message(message: Any, lines: Iterable[int] = ()) -> ServerConfig:
    """The configuration that a ModelServerConfig message means.

    Raises:
        ConfigError: what the real server refuses (server_core.cc): a list in which a name stands twice, a
            base_path that is relative, a platform that it does not know; and custom_model_config.
    """
    if message.WhichOneof("config") != "model_config_list":
        raise ConfigError(
            "no model_config_list: write model_config_list { config { … } }, one config for each model"
        )
    entries = message.model_config_list.config
    lines = tuple(lines)
    models = tuple(
        _model(entry, lines[index] if len(lines) == len(entries) else 0)
        for index, entry in enumerate(entries)
    )
    names = set()
    for model in models:
        if model.name in names:
            raise ConfigError(
                f"model {model.name!r} is listed twice: give each its own name", model=model.name
            )
        names.add(model.name)
    return ServerConfig(models)


def policy_of(entry: Any) -> VersionPolicy:
    """The version policy of a ModelConfig message; the newest version where it has none."""
    policy = entry.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(tuple(policy.specific.versions))
    return Latest(max(policy.latest.num_versions, 1))


def to_message(config: ServerConfig) -> Any:
    """The ModelServerConfig message of a configuration."""
    message = messages.ModelServerConfig()
    message.model_config_list.SetInParent()
    for model in config.models:
        entry = message.model_config_list.config.add(
            name=model.name, base_path=model.base_path, model_platform=model.platform
        )
        entry.version_labels.update(model.labels)
        if model.logging:
            entry.logging_config.ParseFromString(model.logging)
        policy = model.policy
        if isinstance(policy, All):
            entry.model_version_policy.all.SetInParent()
        elif isinstance(policy, Specific):
            entry.model_version_policy.specific.SetInParent()
            entry.model_version_policy.specific.versions.extend(policy.versions)
        elif policy != Latest():
            entry.model_version_policy.latest.num_versions = policy.num_versions
    return message


def to_text(config: ServerConfig) -> str:
    """The configuration as a models.config that both engines read."""
    return message_to_text(to_message(config))


def message_to_text(message: Any) -> str:
    """A ModelServerConfig message as text format, laid out as every models.config of this toolkit is."""
    return text_format.MessageToString(message, as_utf8=True)


def _model(entry: Any, line: int) -> ModelConfig:
    if not entry.base_path.startswith("/") and "://" not in entry.base_path:
        raise ConfigError(
            f"model {entry.name!r}: base_path {entry.base_path!r} is relative, "
            f"an absolute path or URI is expected: write /models/{entry.name}",
            model=entry.name,
        )
    # model_type is the deprecated way to say it; 1 is TENSORFLOW, the only one that was ever served.
    if bool(entry.model_platform) == bool(entry.model_type):
        which = "both model_platform and model_type" if entry.model_platform else "no model_platform"
        raise ConfigError(
            f'model {entry.name!r} has {which}: write model_platform: "{PLATFORM}"', model=entry.name
        )
    platform = entry.model_platform or (PLATFORM if entry.model_type == 1 else "other")
    if platform != PLATFORM:
        raise ConfigError(
            f"model {entry.name!r}: model_platform {platform!r} is unknown: "
            f'write model_platform: "{PLATFORM}"',
            model=entry.name,
        )
    return ModelConfig(
        name=entry.name,
        base_path=entry.base_path,
        policy=policy_of(entry),
        labels=dict(entry.version_labels),
        platform=platform,
        logging=entry.logging_config.SerializeToString(),
        line=line,
    )


def _with_model_config_list(value: Any) -> Any:
    """Puts a list of models where the message has it."""
    if isinstance(value, list):
        return {"model_config_list": {"config": value}}
    if not isinstance(value, dict):
        return value
    if set(value) == {"config"}:
        return {"model_config_list": value}
    return {
        name: {"config": models}
        if isinstance(models, list) and text_positions.snake_case(name) == "model_config_list"
        else models
        for name, models in value.items()
    }
