"""Which versions go into an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tfserving.errors import InvalidInputError, RepositoryError
from tfserving.repository.config import All, Latest, ModelConfig, ServerConfig, Specific
from tfserving.repository.selection import Planned, plan

MakeVersion = Callable[..., Path]


def test_what_the_policies_can_serve_and_no_other(models_dir: Path, make_version: MakeVersion) -> None:
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
    assert [str(planned) for planned in plan(config, models_dir)] == [
        f"newest\t10\t{models_dir}/a/10",
        f"two\t2\t{models_dir}/a/2",
        f"two\t10\t{models_dir}/a/10",
        f"every\t1\t{models_dir}/a/1",
        f"every\t2\t{models_dir}/a/2",
        f"every\t10\t{models_dir}/a/10",
        f"chosen\t2\t{models_dir}/a/2",
        f"b\t7\t{models_dir}/b/007",
    ]


def test_a_version_that_is_not_served_may_be_half_copied(models_dir: Path, make_version: MakeVersion) -> None:
    (make_version("a", 1) / "saved_model.pb").unlink()
    make_version("a", 2)
    config = ServerConfig((ModelConfig("a", "/models/a"),))
    assert plan(config, models_dir) == (Planned("a", 2, models_dir / "a/2"),)


def test_a_version_that_is_served_may_not(models_dir: Path, make_version: MakeVersion) -> None:
    (make_version("a", 1) / "saved_model.pb").unlink()
    with pytest.raises(RepositoryError, match=r"a/1 has no saved_model\.pb"):
        plan(ServerConfig((ModelConfig("a", "/models/a"),)), models_dir)


def test_nothing_to_serve(models_dir: Path, make_version: MakeVersion) -> None:
    make_version("a", 1)
    config = ServerConfig((ModelConfig("a", "/models/a", Specific((2,))),))
    with pytest.raises(RepositoryError, match="has no version to serve: make one: python export_saved_model"):
        plan(config, models_dir)


def test_a_missing_model(models_dir: Path) -> None:
    with pytest.raises(RepositoryError, match="cannot be listed"):
        plan(ServerConfig((ModelConfig("a", "/models/a"),)), models_dir)


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "", "../a"])
def test_no_name_breaks_the_lines(name: str, models_dir: Path, make_version: MakeVersion) -> None:
    make_version("a", 1)
    with pytest.raises(InvalidInputError, match="is no model name"):
        plan(ServerConfig((ModelConfig(name, "/models/a"),)), models_dir)


def test_no_path_breaks_the_lines(models_dir: Path, make_version: MakeVersion) -> None:
    make_version("a\tb", 1)
    with pytest.raises(InvalidInputError, match="has a tab or a line break in it"):
        plan(ServerConfig((ModelConfig("a", "/models/a\tb"),)), models_dir)
