"""Model repositories of minimal SavedModels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.saved_models import write_saved_model

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
        write_saved_model(path)
        return path

    return make


@pytest.fixture
def fill_version() -> Callable[[Path], None]:
    return write_saved_model
