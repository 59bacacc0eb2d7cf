"""The versions of models on disk that the version policies of a configuration select."""

from __future__ import annotations

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
