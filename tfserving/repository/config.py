"""models.config: which models a server serves, which versions of each, and with which labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tfserving.errors import ConfigError
from tfserving.repository.config_text import parse_text_format, read_config_text
from tfserving.repository.model_names import name_or_placeholder, quote
from tfserving.repository.versions import MODELS_ROOT, local_path

PLATFORM = "tensorflow"

# The deprecated field model_type has the values TENSORFLOW and OTHER.
TENSORFLOW_TYPE = 1


@dataclass(frozen=True)
class Latest:
    """Serves the `num_versions` largest versions on disk; 0 means 1, as in tensorflow_model_server."""

    num_versions: int = 1

    def select(self, versions: Iterable[int]) -> tuple[int, ...]:
        """Those of `versions`, the versions on disk, to serve, in ascending order."""
        return tuple(sorted(set(versions))[-max(self.num_versions, 1) :])


@dataclass(frozen=True)
class All:
    """Serves every version on disk."""

    def select(self, versions: Iterable[int]) -> tuple[int, ...]:
        """See `Latest.select`."""
        return tuple(sorted(set(versions)))


@dataclass(frozen=True)
class Specific:
    """Serves those of the listed versions that are on disk."""

    versions: tuple[int, ...]

    def select(self, versions: Iterable[int]) -> tuple[int, ...]:
        """Those of `versions`, the versions on disk, to serve, in ascending order."""
        return tuple(sorted(set(versions) & set(self.versions)))


VersionPolicy = Latest | All | Specific


@dataclass(frozen=True)
class ModelConfig:
    """One model of the list.

    Attributes:
        name: the name in requests.
        base_path: the directory of its versions, `/models/NAME` with both engines.
        policy: which versions are served; the newest one if the file has no policy.
        labels: versions by label, such as `{"stable": 1}`.
    """

    name: str
    base_path: str
    policy: VersionPolicy = field(default_factory=Latest)
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerConfig:
    """The models of a server, in the order of the file."""

    models: tuple[ModelConfig, ...] = ()


class EntryError(NamedTuple):
    """An error in a ModelConfig: the field, the end of a sentence that begins with the model, and a hint."""

    field: str
    message: str
    hint: str


def parse_config(text: str, origin: str = "") -> ServerConfig:
    """Parse protobuf text format, as a server does; `origin` is the name of the file, for errors.

    Raises:
        ConfigSyntaxError: the text does not parse. Like tensorflow_model_server's, the message begins with
            `Error parsing text-format tensorflow.serving.ModelServerConfig: LINE:COLUMN: `.
        ConfigError: see `from_message`.
    """
    message = parse_text_format(text, origin=origin)
    try:
        return from_message(message)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}" if origin else str(error), model=error.model) from error


def read_models(path: Path | None) -> tuple[ModelConfig, ...]:
    """The models of a configuration file; none without a file, or if it is not valid."""
    if path is None:
        return ()
    try:
        return parse_config(read_config_text(path), str(path)).models
    except (OSError, ConfigError):
        return ()


def from_message(message: Any) -> ServerConfig:
    """The configuration in a ModelServerConfig message.

    Raises:
        ConfigError: tensorflow_model_server rejects it too (server_core.cc): a name that is listed twice, or
            see `find_entry_errors`; or it uses custom_model_config.
    """
    if message.WhichOneof("config") != "model_config_list":
        raise ConfigError(
            "the configuration has no model_config_list; write model_config_list { config { … } }, "
            "one config for each model"
        )
    models: dict[str, ModelConfig] = {}
    for entry in message.model_config_list.config:
        for error in find_entry_errors(entry):
            raise ConfigError(f"model {quote(entry.name)} {error.message}; {error.hint}", model=entry.name)
        if entry.name in models:
            raise ConfigError(
                f"model {quote(entry.name)} is listed twice; use another name", model=entry.name
            )
        models[entry.name] = ModelConfig(
            entry.name, entry.base_path, policy_of(entry), dict(entry.version_labels)
        )
    return ServerConfig(tuple(models.values()))


def find_entry_errors(entry: Any) -> Iterator[EntryError]:
    """What tensorflow_model_server rejects in a ModelConfig message: no usable base_path or platform."""
    base_path, platform, old = entry.base_path, entry.model_platform, entry.model_type
    if not base_path:
        yield EntryError("base_path", "has no base_path", base_path_hint(entry.name))
    elif (path := local_path(base_path)) is None:
        message = f"has base_path {quote(base_path)}, a URI of a file system that servers cannot read"
        hint = (
            f"copy the model to MODELS_DIR/{name_or_placeholder(entry.name)} and {base_path_hint(entry.name)}"
        )
        yield EntryError("base_path", message, hint)
    elif not path.startswith("/"):
        message = f"has base_path {quote(base_path)}, which is not an absolute path"
        yield EntryError("base_path", message, base_path_hint(entry.name))
    hint = f'write model_platform: "{PLATFORM}"'
    if platform and old:
        yield EntryError("model_type", "has both model_platform and model_type", "remove model_type")
    elif old:
        if old != TENSORFLOW_TYPE:
            yield EntryError("model_type", "has an unsupported model_type", f"{hint} instead")
    elif not platform:
        yield EntryError("model_platform", "has no model_platform", hint)
    elif platform != PLATFORM:
        yield EntryError("model_platform", f"has the unknown model_platform {quote(platform)}", hint)


def base_path_hint(name: str) -> str:
    """The right base_path of a model."""
    return f'write base_path: "{MODELS_ROOT}/{name_or_placeholder(name)}"'


def policy_of(entry: Any) -> VersionPolicy:
    """The version policy of a ModelConfig message; the newest version if it has none."""
    policy = entry.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(tuple(policy.specific.versions))
    return Latest(policy.latest.num_versions or 1)
