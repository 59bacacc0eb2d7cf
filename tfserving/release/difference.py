"""What a models.config would change on a server: the versions that it loads and unloads, and the labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tfserving.release.served_models import ServedModel
from tfserving.repository import versions
from tfserving.repository.config import ModelConfig


class LabelChange(NamedTuple):
    """A label of a model that moves, is new (`before` is None) or is removed (`after` is None)."""

    label: str
    before: int | None
    after: int | None


@dataclass(frozen=True)
class ModelDifference:
    """What would change for one model.

    Attributes:
        load: versions that the server has not loaded, and the configuration selects.
        unload: versions that the server has loaded, and the configuration does not select.
        labels: labels that would change.
    """

    model: str
    load: tuple[int, ...]
    unload: tuple[int, ...]
    labels: tuple[LabelChange, ...]

    @property
    def count(self) -> int:
        return len(self.load) + len(self.unload) + len(self.labels)


def find_differences(
    configured: Iterable[ModelConfig], served: Mapping[str, ServedModel], models_dir: Path
) -> list[ModelDifference]:
    """What applying a configuration would change; only models for which something changes.

    Args:
        configured: the models of the configuration.
        served: what the server serves now.
        models_dir: the model repository, `/models` in a base_path.

    Raises:
        RepositoryError: a base_path is not a readable directory.
    """
    models = {model.name: model for model in configured}
    differences = []
    for name in (*models, *(name for name in served if name not in models)):
        selected: set[int] = set()
        labels: Mapping[str, int] = {}
        if name in models:
            found = versions.find_versions(versions.resolve(models[name].base_path, models_dir))
            selected, labels = set(models[name].policy.select(found)), models[name].labels
        current = served.get(name) or ServedModel(name)
        difference = ModelDifference(
            name,
            tuple(sorted(selected.difference(current.loaded))),
            tuple(sorted(set(current.loaded) - selected)),
            tuple(_compare_labels(current.labels, labels)),
        )
        if difference.count:
            differences.append(difference)
    return differences


def _compare_labels(before: Mapping[str, int], after: Mapping[str, int]) -> Iterable[LabelChange]:
    for label in sorted({*before, *after}):
        change = LabelChange(label, before.get(label), after.get(label))
        if change.before != change.after:
            yield change
