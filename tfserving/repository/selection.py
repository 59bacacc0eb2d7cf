"""The versions of models on disk that the version policies of a configuration select."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tfserving.errors import InvalidInputError, RepositoryError
from tfserving.repository import versions
from tfserving.repository.completeness import check_version_dir
from tfserving.repository.config import ServerConfig
from tfserving.repository.diagnostics import export_command
from tfserving.repository.model_names import check_name, quote


class SelectedVersion(NamedTuple):
    """One version of one model, and its directory."""

    model: str
    version: int
    path: Path


def find_model_version(models_dir: Path, text: str) -> SelectedVersion:
    """The version of `NAME/VERSION`, or the newest one of `NAME`, in `models_dir`.

    Raises:
        InvalidInputError: the name or the version is not valid.
        RepositoryError: there is no such version on disk.
    """
    name, slash, number = text.partition("/")
    base = models_dir / check_name(name)
    if slash and not re.fullmatch("[0-9]+", number):
        raise InvalidInputError(
            f"{quote(text)} is not a version of a model; write NAME or NAME/VERSION, such as {name}/1"
        )
    found = versions.find_versions(base)
    version = int(number) if slash else max(found, default=0)
    if version not in found:
        listed = ", ".join(map(str, found)) or "none"
        wanted = f"no version {version} on disk (found {listed})" if slash else "no version on disk"
        export = export_command(name, models_dir)
        raise RepositoryError(f"{base} has {wanted}; export one: {export}", model=name)
    return SelectedVersion(name, version, found[version])


def select_versions(config: ServerConfig, models_dir: Path) -> tuple[SelectedVersion, ...]:
    """The versions in `models_dir` that the version policies of `config` select, in the order of the config.

    Raises:
        RepositoryError: a base_path does not exist, no version of a model is selected, or one that is
            selected is not a complete SavedModel.
        InvalidInputError: a name or path does not fit into a column of TSV.
    """
    selected: list[SelectedVersion] = []
    for model in config.models:
        base = versions.resolve(model.base_path, models_dir)
        check_name(model.name)
        if any(character in str(base) for character in "\t\r\n"):
            raise InvalidInputError(
                f"{quote(str(base))} contains a tab or a line break; rename the directory"
            )
        found = versions.find_versions(base)
        numbers = model.policy.select(found)
        if not numbers:
            export = export_command(model.name, models_dir)
            raise RepositoryError(
                f"{base} has no version that the policy of {model.name} selects; export one: {export}",
                model=model.name,
            )
        for number in numbers:
            check_version_dir(found[number])
            selected.append(SelectedVersion(model.name, number, found[number]))
    return tuple(selected)
