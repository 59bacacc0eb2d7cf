"""What servers serve: the states of each model's versions, and the versions that callers get.

The API lists neither the models of a server nor its labels. Both are requested by the names that a
configuration or the model repository has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tfserving.client.types import VersionStatus
from tfserving.errors import (
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    TfServingError,
)
from tfserving.release.servers import ServerConnections, ServerProcess, available_versions
from tfserving.repository.config import ModelConfig, read_models
from tfserving.repository.versions import list_models

# Seconds until a server counts as not responding.
RESPONSE_SECONDS = 5.0

# Labels that releases use. A server has them also if no file here names them.
_USUAL_LABELS = frozenset({"stable", "canary"})


@dataclass(frozen=True)
class ServedModel:
    """One model of a server.

    Attributes:
        versions: all that the server knows, newest first, with those that it unloaded or could not load.
        default: the version that callers without version or label get; None if none is available.
        labels: versions by label.
    """

    name: str
    versions: tuple[VersionStatus, ...] = ()
    default: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def loaded(self) -> tuple[int, ...]:
        """The versions that the server has loaded or is loading, in ascending order."""
        held = (each.version for each in self.versions if each.state in ("START", "LOADING", "AVAILABLE"))
        return tuple(sorted(held))

    @property
    def held(self) -> tuple[int, ...]:
        """The loaded versions and those that are unloading, in ascending order."""
        return tuple(sorted(each.version for each in self.versions if each.state != "END"))


@dataclass(frozen=True)
class ServerSnapshot:
    """What a server serves; `error` is why it did not respond, "" if it did.

    Attributes:
        models: those of which the server knows a version, by name.
    """

    server: ServerProcess
    models: Mapping[str, ServedModel] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class ModelNames:
    """The names of models and labels to request from a server."""

    models: tuple[str, ...]
    labels: Mapping[str, frozenset[str]]


def collect_names(server: ServerProcess, configured: Iterable[ModelConfig], models_dir: Path) -> ModelNames:
    """The names that a server can have: of configurations, and of the directories in the repository."""
    labels: dict[str, set[str]] = {}
    for model in (*configured, *read_models(server.config), *read_models(server.active_config)):
        labels.setdefault(model.name, set()).update(model.labels)
    for name in list_models(models_dir):
        labels.setdefault(name, set())
    return ModelNames(tuple(labels), {name: _USUAL_LABELS | found for name, found in labels.items()})


def take_snapshot(
    connections: ServerConnections,
    server: ServerProcess,
    names: ModelNames,
    *,
    timeout: float = RESPONSE_SECONDS,
) -> ServerSnapshot:
    """Request the states and labels of these models; does not raise if the server does not respond."""
    try:
        states = connections.states(server, names.models, timeout=timeout)
        models = {
            name: _resolve(connections, server, name, tuple(found), names.labels[name], timeout)
            for name, found in states.items()
            if found
        }
    except TfServingError as error:
        return ServerSnapshot(server, error=str(error))
    return ServerSnapshot(server, models)


def take_snapshots(
    connections: ServerConnections,
    names: Mapping[ServerProcess, ModelNames],
    *,
    timeout: float = RESPONSE_SECONDS,
) -> list[ServerSnapshot]:
    """The snapshots of several servers, taken at the same time."""

    def take(server: ServerProcess) -> ServerSnapshot:
        return take_snapshot(connections, server, names[server], timeout=timeout)

    with ThreadPoolExecutor(max_workers=max(len(names), 1)) as pool:
        return list(pool.map(take, names))


def _resolve(
    connections: ServerConnections,
    server: ServerProcess,
    name: str,
    states: tuple[VersionStatus, ...],
    labels: Iterable[str],
    timeout: float,
) -> ServedModel:
    """The model with the versions that its labels stand for."""
    available = available_versions(states)
    if not available:
        return ServedModel(name, states)
    client = connections.client(server)
    resolved = {}
    for label in sorted(labels):
        # Also a label whose version is not loaded.
        with suppress(InvalidInputError, NotFoundError, FailedPreconditionError):
            resolved[label] = client.resolve_version(name, label=label, timeout=timeout)
    # TensorFlow Serving: the largest version that is available.
    return ServedModel(name, states, available[-1], resolved)
