"""Deleting old versions: never one that a server serves, a configuration selects or a rollback needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from tfserving.errors import ConfigError, RepositoryError, TfServingError, UnavailableError
from tfserving.release.change_files import ChangeFiles, is_disk_full
from tfserving.release.history import DONE, History, HistoryRecord, ModelState, find_rollback_target
from tfserving.release.servers import ServerConnections, ServerProcess
from tfserving.repository import versions
from tfserving.repository.config import ModelConfig, Specific, parse_config
from tfserving.repository.config_text import read_config_text


@dataclass(frozen=True)
class PruneStep:
    """What happens to a version; `reason` is why it is kept, "" if it is deleted."""

    version: int
    path: Path
    reason: str = ""


@dataclass(frozen=True)
class UsedConfig:
    """A models.config, and the model repository that its base paths refer to."""

    path: Path
    models_dir: Path

    def entries(self, base: Path) -> list[ModelConfig]:
        """The models with this base path.

        Raises:
            ConfigError: the file is not readable or not valid.
        """
        try:
            models = parse_config(read_config_text(self.path), str(self.path)).models
        except OSError as error:
            raise ConfigError(f"cannot read {self.path}: {error.strerror}; nothing was deleted") from error
        return [
            model
            for model in models
            if os.path.realpath(versions.resolve(model.base_path, self.models_dir)) == os.path.realpath(base)
        ]


def find_configs(config: Path, models_dir: Path, servers: Iterable[ServerProcess]) -> list[UsedConfig]:
    """The configurations in use: the one of the command, and those that servers read or have in force."""
    found = {config: models_dir}
    for server in servers:
        for path in (server.config, server.active_config):
            if path is not None:
                found.setdefault(path, server.models_dir or models_dir)
    return [UsedConfig(path, directory) for path, directory in found.items() if path.exists()]


def serves_from(server: ServerProcess, base: Path) -> bool:
    """Whether a server reads the versions in `base`; one with the models in its image does not."""
    if server.models_dir is None:
        return False
    return Path(os.path.realpath(base)).is_relative_to(os.path.realpath(server.models_dir))


def plan_prune(
    base: Path,
    keep: int,
    configs: Sequence[UsedConfig],
    connections: ServerConnections,
    records: Sequence[HistoryRecord],
    *,
    timeout: float,
) -> list[PruneStep]:
    """What would happen to each version in `base`, in ascending order.

    Args:
        keep: how many of the newest versions are kept, whether they are in use or not.
        configs: the configurations in use.
        connections: the servers that may serve the model.
        records: the history of the repository.
        timeout: seconds until a server counts as not responding.

    Raises:
        ConfigError: a configuration is not valid.
        RepositoryError: `base` is not a readable directory.
        UnavailableError: a server does not respond, so its versions are not known.
    """
    found = versions.find_versions(base)
    reasons: dict[int, str] = {}
    for version in sorted(found)[-keep:]:
        reasons[version] = f"one of the newest {keep}"
    names = {base.name}
    for config in configs:
        for model in config.entries(base):
            names.add(model.name)
            for version, reason in _find_configured(config.path, model, found):
                reasons.setdefault(version, reason)
            target = find_rollback_target(list(records), model.name, _promoted(records, model.name))
            if target is not None:
                reasons.setdefault(target, f"`tfserving rollback {model.name}` would return to it")
    for server in connections.servers:
        for version in _find_served(connections, server, sorted(names), timeout):
            reasons.setdefault(version, f"loaded by {server}")
    return [PruneStep(version, path, reasons.get(version, "")) for version, path in found.items()]


def prune(
    files: ChangeFiles, history: History, line: HistoryRecord, base: Path, steps: Sequence[PruneStep]
) -> None:
    """Delete versions, and add a line to the history.

    The versions are renamed to names that servers ignore, then recorded, then deleted. The record of
    `files.begin_prune` lets the next command continue after a kill. A full disk has no space for it, nor for
    the history before something is deleted, but a prune is what makes space.

    Args:
        line: the line of the history, without its time and result; `after` has the versions that are kept.
        base: the directory of the model.
        steps: see `plan_prune`.

    Raises:
        RepositoryError: a version cannot be renamed or deleted, or the history cannot be written. The
            message says what was done.
    """
    history.check_writable()
    paths = {"models_dir": os.path.abspath(history.path.parent), "base": os.path.abspath(base)}
    files.begin_prune({"line": line.to_json(), **paths})
    try:
        withdraw_versions(steps)
    finally:
        _record_and_delete(history, line, base)
        files.end_prune()


def withdraw_versions(steps: Iterable[PruneStep]) -> None:
    """Rename the versions to delete to names that servers ignore.

    Raises:
        RepositoryError: a rename fails; the versions before it are renamed.
    """
    for step in steps:
        if not step.reason:
            versions.withdraw(step.path)


def finish_prune(files: ChangeFiles, report: Callable[[str], None]) -> None:
    """Record a prune that was interrupted, delete what it renamed, and report it.

    Versions that it did not rename stay: they may be in use by now.

    Raises:
        RepositoryError: the history cannot be written.
    """
    begun = files.read_prune()
    if begun is None:
        return
    line, base = HistoryRecord.from_json(begun["line"]), Path(begun["base"])
    withdrawn = versions.find_withdrawn(base) if base.is_dir() else []
    for path in withdrawn:
        report(f"`{line.command}` was interrupted; deleting {path}")
    try:
        _record_and_delete(History(Path(begun["models_dir"])), line, base)
    except DeletionError as error:  # which must not keep anybody from a release
        report(f"note: {error}")
        return
    files.end_prune()


class DeletionError(RepositoryError):
    """A version that servers ignore already cannot be deleted."""


def _record_and_delete(history: History, line: HistoryRecord, base: Path) -> None:
    before, after = line.before, line.after
    assert before is not None
    assert after is not None
    on_disk = versions.find_versions(base) if base.is_dir() else {}
    deleted = set(before.versions) - set(after.versions) - set(on_disk)
    record = replace(
        line,
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        after=ModelState(tuple(version for version in before.versions if version not in deleted)),
        result=DONE,
    )
    if deleted and all(known.id != line.id for known in history.read()):
        try:
            history.append(record)
        except OSError as error:
            if not is_disk_full(error):
                left = "are renamed, so servers ignore them; the next command records and deletes them"
                raise _not_recorded(history, error, left) from error
            delete_withdrawn(base)
            try:
                history.append(record)
            except OSError as again:
                raise _not_recorded(history, again, "are deleted") from again
    if base.is_dir():
        delete_withdrawn(base)


def _not_recorded(history: History, error: OSError, state: str) -> RepositoryError:
    return RepositoryError(f"cannot write {history.path}: {error.strerror}; the versions {state}")


def delete_withdrawn(base: Path) -> list[Path]:
    """Delete the renamed versions, also those of a command that was killed; returns their paths.

    Raises:
        DeletionError: a file cannot be deleted.
    """
    withdrawn = versions.find_withdrawn(base)
    for path in withdrawn:
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise DeletionError(
                f"cannot delete {error.filename}: {error.strerror}; servers ignore {path}; run the command "
                "again to delete it"
            ) from error
    return withdrawn


def _find_configured(path: Path, model: ModelConfig, found: Mapping[int, Path]) -> Iterator[tuple[int, str]]:
    """The versions that an entry of a configuration names, and the reasons to keep them."""
    for label, version in sorted(model.labels.items()):
        yield version, f"label {label} of {model.name} in {path}"
    listed = model.policy.versions if isinstance(model.policy, Specific) else model.policy.select(found)
    for version in listed:
        yield version, f"selected by {model.name} in {path}"


def _find_served(
    connections: ServerConnections, server: ServerProcess, names: Sequence[str], timeout: float
) -> set[int]:
    try:
        states = connections.states(server, names, timeout=timeout)
    except TfServingError as error:
        raise UnavailableError(
            f"{server} does not respond, so the versions that it serves are not known: {error}; nothing was "
            "deleted"
        ) from error
    return {each.version for found in states.values() for each in found if each.state != "END"}


def _promoted(records: Sequence[HistoryRecord], model: str) -> int | None:
    """The version that the last successful change of a model promoted."""
    for record in reversed(records):
        if record.model == model and record.result == DONE and record.operation != "prune":
            return record.after.promoted if record.after else None
    return None
