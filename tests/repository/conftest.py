"""Model repositories of empty SavedModels: the repository code checks only names and sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MakeVersion = Callable[..., Path]


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def make_version(models_dir: Path) -> MakeVersion:
    """`make_version("digits", 3)` creates models/digits/3, a complete version with variables."""

    def make(model: str, version: int | str) -> Path:
        path = models_dir / model / str(version)
        fill(path)
        return path

    return make


@pytest.fixture
def fill_version() -> Callable[[Path], None]:
    return fill


def fill(path: Path) -> None:
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"\x08\x01")
    (path / "variables" / "variables.index").write_bytes(b"index")
    (path / "variables" / "variables.data-00000-of-00001").write_bytes(b"data")
