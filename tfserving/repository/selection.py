"""Which versions of which models go into an image: those that the policies can serve, and no other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tfserving.errors import InvalidInputError, RepositoryError
from tfserving.repository import versions
from tfserving.repository.config import ServerConfig
from tfserving.repository.diagnostics import export_command
from tfserving.repository.model_names import check_name


@dataclass(frozen=True)
class Planned:
    """One version of one model, and the directory that it lies in."""

    model: str
    version: int
    path: Path

    def __str__(self) -> str:
        """`MODEL<TAB>VERSION<TAB>PATH`, a line of the plan."""
        return f"{self.model}\t{self.version}\t{self.path}"


def plan(config: ServerConfig, models_dir: str | os.PathLike[str]) -> tuple[Planned, ...]:
    """The versions that the policies of `config` can serve out of `models_dir`, in the order of the config.

    Raises:
        RepositoryError: a base_path is missing, none of its versions can be served, or one that can is no
            whole SavedModel.
        InvalidInputError: a name or path that would break the lines of a plan.
    """
    planned: list[Planned] = []
    for model in config.models:
        base = versions.resolve(model.base_path, models_dir)
        check_name(model.name)
        if any(character in os.fspath(base) for character in "\t\r\n"):
            raise InvalidInputError(
                f"{os.fspath(base)!r} has a tab or a line break in it: rename the directory"
            )
        found = versions.find_versions(base)
        chosen = model.policy.select(found)
        if not chosen:
            make = export_command(model.name, models_dir)
            raise RepositoryError(f"{base} has no version to serve: make one: {make}", model=model.name)
        for version in chosen:
            versions.check_version_dir(found[version])
            planned.append(Planned(model.name, version, found[version]))
    return tuple(planned)
