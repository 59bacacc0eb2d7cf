"""A full and a read-only file system: nothing is half changed, and the next command works."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release.conftest import CHANGES, Release
from tfserving.release.config_edit import parse_config_file
from tfserving.repository.completeness import find_version_error
from tfserving.repository.versions import find_versions, find_withdrawn

COMMANDS = [
    *CHANGES,
    ("prune", "digits", "--keep", "1"),
    ("warmup", "unserved/2"),
]


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
    subprocess.run(["cp", "-r", version_dir.parent, release.models / "unserved"], check=True)
    (release.models / "more").symlink_to("digits")
    return release


def check_repository(release: Release) -> None:
    """Check models.config, the history and all versions."""
    parse_config_file(release.config.read_text(), release.config)
    assert all(record.result for record in release.history)
    for name in ("digits", "other", "unserved"):
        for path in find_versions(release.models / name).values():
            assert find_version_error(path) is None


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_a_read_only_file_system_changes_nothing(promoted, disk, command, monkeypatch):
    monkeypatch.setenv("MODELS_DIR", str(promoted.models))
    before = {path: path.read_bytes() for path in promoted.models.rglob("*") if path.is_file()}
    disk.remount("ro")
    try:
        outcome = promoted.run(*command)
    finally:
        disk.remount("rw")
    assert outcome.status in (1, 2), outcome
    assert "Read-only file system" in outcome.err
    assert "Traceback" not in outcome.err
    assert {path: path.read_bytes() for path in promoted.models.rglob("*") if path.is_file()} == before
    assert promoted.available() == [[2]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_a_full_disk_leaves_a_valid_repository(promoted, disk, command, monkeypatch):
    monkeypatch.setenv("MODELS_DIR", str(promoted.models))
    before, served = promoted.config.read_text(), promoted.available()
    disk.fill()
    outcome = promoted.run(*command)
    assert outcome.status in (0, 1, 2), outcome
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
    assert find_withdrawn(promoted.models / "digits") == []
    check_repository(promoted)
