"""Copying the files of a SavedModel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tfserving.errors import RepositoryError
from tfserving.repository.model_files import copy_model_files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "assets").mkdir(parents=True)
    (directory / "saved_model.pb").write_text("graph")
    (directory / "assets" / "vocabulary").write_text("words")
    return directory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def test_copies_all_files_and_no_hidden_ones(source: Path, target: Path) -> None:
    (source / ".git").mkdir()
    (source / ".git" / "config").write_text("secret")
    (source / "assets" / ".env").symlink_to("/etc/passwd")
    assert copy_model_files(source, target) == [".git", "assets/.env"]
    assert files(target) == ["assets/vocabulary", "saved_model.pb"]


def test_copies_what_links_inside_point_to(source: Path, target: Path, tmp_path: Path) -> None:
    (source / "assets" / "relative").symlink_to("vocabulary")
    (source / "assets" / "absolute").symlink_to(source / "saved_model.pb")
    (source / "more").symlink_to("assets")
    (tmp_path / "link").symlink_to(source)
    copy_model_files(tmp_path / "link", target)
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert (target / "more" / "absolute").read_text() == "graph"
    assert (target / "assets" / "relative").read_text() == "words"


@pytest.mark.parametrize("text", ["../outside/key", "{root}/outside/key", "../outside", "hop"])
def test_rejects_links_that_leave_the_source(source: Path, target: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "key").write_text("secret")
    (source / "hop").symlink_to(text.format(root=tmp_path) if text != "hop" else tmp_path / "outside")
    (source / "link").symlink_to("hop")
    with pytest.raises(RepositoryError, match=r"which is not in .*source; copy the file there"):
        copy_model_files(source, target)
    assert "secret" not in [path.read_text() for path in target.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "is a broken link to nowhere"),
        ("link", "is a broken link to link"),
        (".", "is a link to a directory that contains it"),
        (".env", "is a link to .*a hidden file"),
        ("fifo", "is not a regular file or a directory"),
    ],
)
def test_rejects_links_that_cannot_be_copied(source: Path, target: Path, text: str, message: str) -> None:
    (source / ".env").write_text("secret")
    (source / "z").mkdir()
    if text == "fifo":
        os.mkfifo(source / "fifo")
    (source / "link").symlink_to(text)
    with pytest.raises(RepositoryError, match=message):
        copy_model_files(source, target)
