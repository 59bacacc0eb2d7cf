"""The versions that the policies of a configuration select."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tfserving.errors import InvalidInputError, RepositoryError
from tfserving.repository.config import All, Latest, ModelConfig, ServerConfig, Specific
from tfserving.repository.selection import SelectedVersion, select_versions

MakeVersion = Callable[..., Path]


def test_returns_the_versions_that_the_policies_select(models_dir: Path, make_version: MakeVersion) -> None:
    for version in (1, 2, 10):
        make_version("a", version)
    make_version("b", "007")
    (models_dir / "a" / ".a.staging-0").mkdir()
    config = ServerConfig(
        (
            ModelConfig("newest", "/models/a"),
            ModelConfig("two", "/models/a", Latest(2)),
            ModelConfig("every", "/models/a", All()),
            ModelConfig("chosen", "/models/a", Specific((2,))),
            ModelConfig("b", "/models/b/"),
        )
    )
    assert ["\t".join(map(str, selected)) for selected in select_versions(config, models_dir)] == [
        f"newest\t10\t{models_dir}/a/10",
        f"two\t2\t{models_dir}/a/2",
        f"two\t10\t{models_dir}/a/10",
        f"every\t1\t{models_dir}/a/1",
        f"every\t2\t{models_dir}/a/2",
        f"every\t10\t{models_dir}/a/10",
        f"chosen\t2\t{models_dir}/a/2",
        f"b\t7\t{models_dir}/b/007",
    ]


def test_ignores_an_incomplete_version_that_is_not_selected(
    models_dir: Path, make_version: MakeVersion
) -> None:
    (make_version("a", 1) / "saved_model.pb").unlink()
    make_version("a", 2)
    config = ServerConfig((ModelConfig("a", "/models/a"),))
    assert select_versions(config, models_dir) == (SelectedVersion("a", 2, models_dir / "a/2"),)


def test_rejects_an_incomplete_version_that_is_selected(models_dir: Path, make_version: MakeVersion) -> None:
    (make_version("a", 1) / "saved_model.pb").unlink()
    with pytest.raises(RepositoryError, match=r"a/1 has no saved_model\.pb"):
        select_versions(ServerConfig((ModelConfig("a", "/models/a"),)), models_dir)


def test_rejects_a_model_without_a_selected_version(models_dir: Path, make_version: MakeVersion) -> None:
    make_version("a", 1)
    config = ServerConfig((ModelConfig("a", "/models/a", Specific((2,))),))
    message = "a has no version that the policy of a selects; export one: tfserving export SOURCE --name a"
    with pytest.raises(RepositoryError, match=message):
        select_versions(config, models_dir)


def test_rejects_a_missing_model(models_dir: Path) -> None:
    with pytest.raises(RepositoryError, match="cannot list"):
        select_versions(ServerConfig((ModelConfig("a", "/models/a"),)), models_dir)


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "", "../a"])
def test_rejects_an_invalid_name(name: str, models_dir: Path, make_version: MakeVersion) -> None:
    make_version("a", 1)
    with pytest.raises(InvalidInputError, match="is not a valid model name"):
        select_versions(ServerConfig((ModelConfig(name, "/models/a"),)), models_dir)


def test_rejects_a_path_with_a_tab(models_dir: Path, make_version: MakeVersion) -> None:
    make_version("a\tb", 1)
    with pytest.raises(InvalidInputError, match="contains a tab or a line break"):
        select_versions(ServerConfig((ModelConfig("a", "/models/a\tb"),)), models_dir)
