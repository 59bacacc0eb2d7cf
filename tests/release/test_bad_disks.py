"""A full and a read-only file system: nothing is half changed, and the next command works."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release.conftest import CHANGES, Release
from tfserving.release.config_edit import parse_config_file
from tfserving.repository.completeness import find_version_error
from tfserving.repository.versions import find_versions, find_withdrawn

PRUNE = ("prune", "old", "--keep", "1")
COMMANDS = [
    *CHANGES,
    PRUNE,
    ("warmup", "unserved/2"),
    ("publish", "{models}/unserved/2", "--name", "unserved"),
    ("publish", "{models}/unserved/2", "--name", "new"),
]
IDS = [words[0] if "new" not in words else "publish the first version" for words in COMMANDS]


def add_old_model(release: Release, version_dir: Path) -> None:
    """Add versions 1 and 2 of `old`, which is in no config."""
    for version in ("1", "2"):
        shutil.copytree(version_dir, release.models / "old" / version)


def list_tree(release: Release) -> set[Path]:
    return {path for path in release.models.rglob("*") if path.name != "filler"}


class Disk:
    """A small file system."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._filler = path / "filler"

    def remount(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", self._path], check=True)

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)) == 4096:
                pass

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A tmpfs with the model repository; skips the test without the right to mount one."""
    path = tmp_path / "models"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"cannot mount a tmpfs: {error}")
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def promoted(disk: Disk, release: Release, version_dir: Path) -> Release:
    """Version 2 of digits is promoted; the versions of `unserved` are in no config."""
    release.serve()
    release.succeed("promote", "digits", "2")
    release.succeed("promote", "digits", "1")
    release.succeed("promote", "digits", "2")
    shutil.copytree(version_dir.parent, release.models / "unserved")
    add_old_model(release, version_dir)
    (release.models / "more").symlink_to("digits")
    return release


def check_repository(release: Release) -> None:
    """Check models.config, the history and all versions."""
    parse_config_file(release.config.read_text(), release.config)
    assert all(record.result for record in release.history)
    for name in ("digits", "other", "unserved", "old"):
        for path in find_versions(release.models / name).values():
            assert find_version_error(path) is None


@pytest.mark.parametrize("command", COMMANDS, ids=IDS)
def test_a_read_only_file_system_changes_nothing(promoted, disk, command, monkeypatch):
    monkeypatch.setenv("MODELS_DIR", str(promoted.models))
    before = {path: path.read_bytes() for path in promoted.models.rglob("*") if path.is_file()}
    disk.remount("ro")
    try:
        outcome = promoted.run(*(word.format(models=promoted.models) for word in command))
    finally:
        disk.remount("rw")
    assert outcome.status in (1, 2), outcome
    assert "Read-only file system" in outcome.err
    assert "Traceback" not in outcome.err
    assert {path: path.read_bytes() for path in promoted.models.rglob("*") if path.is_file()} == before
    assert promoted.available() == [[2]]


@pytest.mark.parametrize("command", [*CHANGES, PRUNE], ids=lambda words: words[0])
def test_a_history_that_is_not_writable_changes_nothing(release, version_dir, as_nobody, command):
    release.serve()
    add_old_model(release, version_dir)
    for version in ("3", "1", "2"):
        release.succeed("promote", "digits", version)
    (release.models / "more").symlink_to("digits")
    lock = release.models / ".models.config.lock"
    for path in (release.models, release.models / "old", lock):
        path.chmod(0o777)
    lock.unlink()
    before = {path: path.read_bytes() for path in release.models.rglob("*") if path.is_file()}
    with as_nobody():
        message = release.fail(*command, status=2)
    assert f"cannot write {release.models}/.history.jsonl: Permission denied; nothing was changed" in message
    lock.unlink()
    assert {path: path.read_bytes() for path in release.models.rglob("*") if path.is_file()} == before
    assert release.available() == [[2]]


@pytest.mark.parametrize("command", COMMANDS, ids=IDS)
def test_a_full_disk_leaves_a_valid_repository(promoted, disk, command, monkeypatch):
    monkeypatch.setenv("MODELS_DIR", str(promoted.models))
    before, served = promoted.config.read_text(), promoted.available()
    disk.fill()
    tree = list_tree(promoted)
    outcome = promoted.run(*(word.format(models=promoted.models) for word in command))
    assert outcome.status in (0, 1, 2), outcome
    if command[0] in ("publish", "warmup"):
        assert (outcome.status, list_tree(promoted)) == (2, tree)
    if command[0] == "prune":
        assert outcome.status == 0, outcome
        assert promoted.history[-1].operation == "prune"
        assert list(find_versions(promoted.models / "old")) == [2]
        assert promoted.hidden_files() == set()
    assert "Traceback" not in outcome.err
    check_repository(promoted)
    disk.free()
    if outcome.status != 0:
        assert "No space left on device" in outcome.err
        assert (promoted.config.read_text(), promoted.available()) == (before, served)
        assert list(find_versions(promoted.models / "unserved")) == [2]
    # The next command finishes or undoes what was begun.
    promoted.succeed("prune", "digits", "--keep", "3")
    promoted.succeed("label", "digits", "red=2")
    assert promoted.hidden_files() == set()
    assert find_withdrawn(promoted.models / "old") == []
    check_repository(promoted)
