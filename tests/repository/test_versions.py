"""Versions on disk: finding, checking and publishing them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import ROOT
from tfserving.errors import InvalidInputError, RepositoryError
from tfserving.repository.completeness import check_version_dir
from tfserving.repository.versions import (
    find_versions,
    list_versions,
    next_version,
    parse_version,
    publish,
    resolve,
    stage_version,
)

Fill = Callable[[Path], None]
Stage = Callable[[Path], Path]
Write = Callable[..., Path]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """`stage(base_path)` enters `stage_version` for the rest of the test."""
    with ExitStack() as stack:
        yield lambda base_path: stack.enter_context(stage_version(base_path))


@pytest.fixture
def without_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library without the system call that never replaces."""
    monkeypatch.setattr("ctypes.CDLL", lambda *args, **kwargs: object())


class TestResolve:
    @pytest.mark.parametrize(
        ("base_path", "under"),
        [
            ("/models/digits", "digits"),
            ("/models/digits/", "digits"),
            ("//models//digits", "digits"),
            ("/models/./digits", "digits"),
            ("/models/team/digits", "team/digits"),
            ("/models/a/../digits", "digits"),
            ("/models", "."),
        ],
    )
    def test_models_stands_for_models_dir(self, base_path: str, under: str, tmp_path: Path) -> None:
        assert resolve(base_path, tmp_path) == tmp_path / under

    @pytest.mark.parametrize(
        ("base_path", "path"),
        [
            ("/srv/digits", "/srv/digits"),
            ("/modelsx/digits", "/modelsx/digits"),
            ("/models/../etc", "/etc"),
            ("/models/../../etc", "/etc"),
        ],
    )
    def test_other_paths_do_not_change(self, base_path: str, path: str, tmp_path: Path) -> None:
        assert resolve(base_path, tmp_path) == Path(path)

    def test_paths_do_not_change_without_models_dir(self) -> None:
        assert resolve("/models/digits") == Path("/models/digits")

    @pytest.mark.parametrize(
        "base_path", ["digits", "./digits", "", "models/digits", "file:/models/digits", "a/b://c"]
    )
    def test_rejects_relative_paths(self, base_path: str) -> None:
        with pytest.raises(RepositoryError, match="is relative; write /models/NAME"):
            resolve(base_path, "models")

    @pytest.mark.parametrize("base_path", ["file:///models/digits", "file://host/models/digits"])
    def test_reads_the_path_of_a_file_uri(self, base_path: str, tmp_path: Path) -> None:
        assert resolve(base_path, tmp_path) == tmp_path / "digits"
        assert resolve(base_path) == Path("/models/digits")

    @pytest.mark.parametrize("base_path", ["gs://bucket/digits", "s3://bucket/digits", "FILE:///models/a"])
    def test_rejects_other_uris(self, base_path: str) -> None:
        with pytest.raises(RepositoryError, match="is a URI of another file system; copy the model"):
            resolve(base_path, "models")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("0", 0),
        ("20240131235959", 20240131235959),
        ("007", 7),
        (" 7 ", 7),
        ("+7", 7),
        ("-7", -7),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", None),
        ("v1", None),
        ("1.0", None),
        ("1_000", None),
        ("1e3", None),
        ("0x1", None),
        ("- 7", None),
        ("", None),
        (".1", None),
        ("1.staging", None),
        ("٣", None),
    ],
)
def test_parse_version_accepts_what_tensorflow_model_server_accepts(name: str, version: int | None) -> None:
    assert parse_version(name) == version


class TestFind:
    def test_sorts_by_number_not_by_name(self, models_dir: Path) -> None:
        for name in ("10", "9", "100"):
            (models_dir / "m" / name).mkdir(parents=True)
        assert list_versions(models_dir / "m") == (9, 10, 100)

    def test_finds_only_directories_with_integer_names(self, models_dir: Path) -> None:
        base = models_dir / "m"
        for name in ("1", "v2", ".m.staging-0", "assets", "3.0"):
            (base / name).mkdir(parents=True)
        (base / "4").write_text("a file")
        assert list_versions(base) == (1,)

    def test_follows_links_and_ignores_dangling_ones(self, models_dir: Path) -> None:
        base = models_dir / "m"
        (base / "1").mkdir(parents=True)
        (base / "2").symlink_to(base / "1")
        (base / "3").symlink_to(base / "nothing")
        assert find_versions(base) == {1: base / "1", 2: base / "2"}

    def test_of_two_names_for_one_number_the_last_wins(self, models_dir: Path) -> None:
        for name in ("1", "01", "001"):
            (models_dir / name).mkdir()
        assert find_versions(models_dir) == {1: models_dir / "1"}

    @pytest.mark.parametrize("moves", ["base path", "version"])
    def test_lists_again_what_is_moved_meanwhile(
        self, models_dir: Path, monkeypatch: pytest.MonkeyPatch, moves: str
    ) -> None:
        for version in ("1", "2"):
            (models_dir / version).mkdir()
        moved = models_dir if moves == "base path" else models_dir / "1"
        isdir = os.path.isdir

        def move_first(path: str) -> bool:
            if os.path.exists(moved):
                moved.rename(models_dir.with_name("moved"))
            return isdir(path)

        monkeypatch.setattr(os.path, "isdir", move_first)
        if moves == "base path":
            with pytest.raises(RepositoryError, match="No such file"):
                find_versions(models_dir)
        else:
            assert find_versions(models_dir) == {2: models_dir / "2"}

    def test_an_empty_base_path_has_no_versions(self, models_dir: Path) -> None:
        assert list_versions(models_dir) == ()

    def test_rejects_a_missing_base_path(self, models_dir: Path) -> None:
        with pytest.raises(RepositoryError, match=r"cannot list .*nothing"):
            list_versions(models_dir / "nothing")

    def test_rejects_a_file_as_base_path(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RepositoryError, match="Not a directory"):
            list_versions(tmp_path / "file")


class TestNext:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [((), 1), (("1",), 2), (("2", "10"), 11), (("0",), 1), (("-5",), 1), (("v9",), 1)],
    )
    def test_is_one_more_than_the_largest(
        self, names: tuple[str, ...], expected: int, tmp_path: Path
    ) -> None:
        for name in names:
            (tmp_path / name).mkdir()
        assert next_version(tmp_path) == expected

    def test_is_1_without_a_base_path(self, tmp_path: Path) -> None:
        assert next_version(tmp_path / "nothing") == 1

    def test_counts_files_with_a_number(self, tmp_path: Path) -> None:
        (tmp_path / "3").write_text("a file")
        assert next_version(tmp_path) == 4

    def test_rejects_a_version_after_the_largest_integer(self, tmp_path: Path) -> None:
        (tmp_path / str(2**63 - 1)).mkdir()
        with pytest.raises(RepositoryError, match="has version 9223372036854775807, the largest possible"):
            next_version(tmp_path)


class TestStaged:
    def test_is_in_the_base_path_and_servers_ignore_it(self, tmp_path: Path, stage: Stage) -> None:
        staging = stage(tmp_path / "digits")
        assert staging.parent == tmp_path / "digits"
        assert staging.name.startswith(".digits.")
        assert list_versions(tmp_path / "digits") == ()
        assert next_version(tmp_path / "digits") == 1

    def test_each_directory_is_new(self, tmp_path: Path, stage: Stage) -> None:
        assert stage(tmp_path) != stage(tmp_path)

    def test_everyone_can_read_the_directories_that_it_creates(self, tmp_path: Path, stage: Stage) -> None:
        (tmp_path / "mine").mkdir(mode=0o700)
        old = os.umask(0o027)
        try:
            stage(tmp_path / "mine/models/digits")
        finally:
            os.umask(old)
        modes = [
            stat.S_IMODE((tmp_path / name).stat().st_mode)
            for name in ("mine", "mine/models", "mine/models/digits")
        ]
        assert modes == [0o700, 0o755, 0o755]

    def test_rejects_a_base_path_that_cannot_be_created(self, tmp_path: Path, stage: Stage) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RepositoryError, match="cannot write to"):
            stage(tmp_path / "file" / "digits")

    def test_an_exception_leaves_nothing_behind(self, tmp_path: Path) -> None:
        def interrupted_export() -> None:
            with stage_version(tmp_path / "digits") as staging:
                (staging / "half").write_text("written")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted_export()
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupt_after_the_directory_is_created_leaves_nothing_behind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Path.mkdir

        def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
            original(path, *args, **kwargs)
            if path.name.startswith("."):
                raise KeyboardInterrupt

        monkeypatch.setattr(Path, "mkdir", mkdir)
        with pytest.raises(KeyboardInterrupt), stage_version(tmp_path / "digits"):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_an_exception_preserves_existing_versions(self, tmp_path: Path, fill_version: Fill) -> None:
        fill_version(tmp_path / "digits/1")
        with pytest.raises(KeyboardInterrupt), stage_version(tmp_path / "digits"):
            raise KeyboardInterrupt
        assert list_versions(tmp_path / "digits") == (1,)

    def test_preserves_what_was_published(self, tmp_path: Path, fill_version: Fill) -> None:
        with stage_version(tmp_path / "digits") as staging:
            fill_version(staging / ".")
            path = publish(staging, tmp_path / "digits")
        check_version_dir(path)
        assert os.listdir(tmp_path / "digits") == ["1"]


class TestLeftovers:
    def age(self, path: Path, seconds: float) -> None:
        """Set the modification times in a tree to so many seconds ago."""
        for entry in [*path.rglob("*"), path]:
            os.utime(entry, (time.time() - seconds,) * 2, follow_symlinks=False)

    def leftover(self, base_path: Path) -> Path:
        path = base_path / f".{base_path.name}.staging-{len(os.listdir(base_path)):08}"
        (path / "variables").mkdir(parents=True)
        (path / "variables/data").write_text("")
        return path

    def test_the_next_export_removes_those_older_than_a_day(self, tmp_path: Path, stage: Stage) -> None:
        old, young = self.leftover(tmp_path), self.leftover(tmp_path)
        self.age(old, 100_000)
        self.age(young, 80_000)
        stage(tmp_path)
        assert not old.exists()
        assert young.exists()

    def test_the_next_export_removes_one_whose_process_was_killed(
        self, tmp_path: Path, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        code = (
            "import sys, time\n"
            "from tfserving.repository.versions import stage_version\n"
            "with stage_version(sys.argv[1]) as staging:\n"
            "    print(staging, flush=True)\n"
            "    time.sleep(600)\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            staging = Path(process.stdout.readline().strip())
            self.age(staging, 1000)
            stage(tmp_path)
            assert staging.exists()
            process.kill()
        stage(tmp_path)
        assert not staging.exists()
        assert caplog.messages == [f"removed {staging}, which an export that was killed left behind"]

    def test_preserves_one_in_which_a_file_changes(self, tmp_path: Path, stage: Stage) -> None:
        staging = self.leftover(tmp_path)
        self.age(staging, 100_000)
        self.age(staging / "variables/data", 5)
        stage(tmp_path)
        assert staging.exists()

    def test_preserves_other_directories(self, tmp_path: Path, stage: Stage) -> None:
        base = tmp_path / "digits"
        names = {"1", ".git", ".other.staging-12345678", "digits.staging-12345678"}
        for name in names:
            (base / name).mkdir(parents=True)
        (base / ".digits.staging-12345678").symlink_to(tmp_path)
        self.age(base, 100_000)
        staging = stage(base)
        assert set(os.listdir(base)) == {*names, ".digits.staging-12345678", staging.name}


class TestPublish:
    @pytest.fixture
    def write(self, stage: Stage, fill_version: Fill) -> Write:
        """`write(base_path, "x")` stages a complete version with a file `mark` that contains x."""

        def write_version(base_path: Path, mark: str = "") -> Path:
            staging = stage(base_path)
            fill_version(staging / ".")
            (staging / "mark").write_text(mark)
            return staging

        return write_version

    def test_renames_the_directory(self, tmp_path: Path, write: Write) -> None:
        staging = write(tmp_path)
        inode = staging.stat().st_ino
        path = publish(staging, tmp_path, 7)
        assert path == tmp_path / "7"
        assert path.stat().st_ino == inode
        assert os.listdir(tmp_path) == ["7"]

    def test_everyone_can_read_the_version(self, tmp_path: Path, write: Write) -> None:
        staging = write(tmp_path)
        staging.chmod(0o700)
        (staging / "variables").chmod(0o750)
        (staging / "mark").chmod(0o600)
        (staging / "variables" / "variables.index").chmod(0o640)
        path = publish(staging, tmp_path, 1)
        names = (".", "variables", "mark", "variables/variables.index")
        assert [oct(stat.S_IMODE((path / name).stat().st_mode)) for name in names] == [
            "0o755",
            "0o755",
            "0o644",
            "0o644",
        ]

    def test_does_not_change_the_target_of_a_link(self, tmp_path: Path, write: Write) -> None:
        target = tmp_path / "elsewhere"
        target.write_text("")
        target.chmod(0o600)
        staging = write(tmp_path / "m")
        (staging / "link").symlink_to(target)
        publish(staging, tmp_path / "m", 1)
        assert stat.S_IMODE(target.stat().st_mode) == 0o600

    def test_takes_the_next_number_by_default(self, tmp_path: Path, write: Write) -> None:
        (tmp_path / "4").mkdir()
        assert publish(write(tmp_path), tmp_path) == tmp_path / "5"

    def test_accepts_version_0(self, tmp_path: Path, write: Write) -> None:
        assert publish(write(tmp_path), tmp_path, 0) == tmp_path / "0"

    @pytest.fixture(params=["renameat2", "rename"])
    def system(self, request: pytest.FixtureRequest) -> None:
        """With and without the system call that never replaces."""
        if request.param == "rename":
            request.getfixturevalue("without_renameat2")

    @pytest.mark.usefixtures("system")
    @pytest.mark.parametrize("kind", ["version", "empty directory", "file", "dangling link"])
    def test_never_overwrites(self, kind: str, tmp_path: Path, write: Write, fill_version: Fill) -> None:
        target = tmp_path / "3"
        if kind == "version":
            fill_version(target)
        elif kind == "empty directory":
            target.mkdir()
        elif kind == "file":
            target.write_text("kept")
        else:
            target.symlink_to(tmp_path / "nothing")
        before = target.lstat().st_ino
        with pytest.raises(
            RepositoryError, match=r"/3 exists, and versions are never overwritten; .* the next is 4"
        ):
            publish(write(tmp_path), tmp_path, 3)
        assert target.lstat().st_ino == before
        assert os.listdir(tmp_path) == ["3"]

    @pytest.mark.usefixtures("without_renameat2")
    def test_without_renameat2_preserves_a_version_that_appears_after_the_check(
        self, tmp_path: Path, write: Write, fill_version: Fill, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill_version(tmp_path / "3")
        staging = write(tmp_path, "late")
        monkeypatch.setattr(os.path, "lexists", lambda path: False)
        with pytest.raises(RepositoryError, match="/3 exists"):
            publish(staging, tmp_path, 3)
        assert not (tmp_path / "3/mark").exists()

    def publish_at_once(self, stagings: list[Path], base_path: Path, version: int | None) -> list[str]:
        """Publish from one thread each; returns the marks of those that succeeded."""
        succeeded: list[str] = []
        start = threading.Barrier(len(stagings))

        def run(staging: Path) -> None:
            mark = (staging / "mark").read_text()
            start.wait()
            try:
                publish(staging, base_path, version)
                succeeded.append(mark)
            except RepositoryError:
                pass

        threads = [threading.Thread(target=run, args=(staging,)) for staging in stagings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return succeeded

    def test_of_concurrent_writers_of_one_version_one_succeeds(self, tmp_path: Path, write: Write) -> None:
        stagings = [write(tmp_path, str(number)) for number in range(8)]
        (mark,) = self.publish_at_once(stagings, tmp_path, 1)
        assert (tmp_path / "1/mark").read_text() == mark
        assert os.listdir(tmp_path) == ["1"]

    def test_concurrent_writers_get_different_numbers(self, tmp_path: Path, write: Write) -> None:
        stagings = [write(tmp_path, str(number)) for number in range(8)]
        assert len(self.publish_at_once(stagings, tmp_path, None)) == 8
        assert list_versions(tmp_path) == tuple(range(1, 9))

    def test_rejects_and_removes_an_incomplete_version(self, tmp_path: Path, stage: Stage) -> None:
        staging = stage(tmp_path / "digits")
        with pytest.raises(RepositoryError, match=r"has no saved_model\.pb"):
            publish(staging, tmp_path / "digits", 1)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("version", [-1, 2**63])
    def test_rejects_a_version_out_of_range(self, version: int, tmp_path: Path, write: Write) -> None:
        with pytest.raises(InvalidInputError, match=f"version {version} is out of range"):
            publish(write(tmp_path), tmp_path, version)
        assert not tmp_path.exists()

    @pytest.mark.usefixtures("without_renameat2")
    def test_removes_the_directory_if_the_rename_fails(
        self, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(source: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.rename", fail)
        staging = write(tmp_path / "digits")
        with pytest.raises(RepositoryError, match=r"cannot publish to .*: No space left .* was removed"):
            publish(staging, tmp_path / "digits", 1)
        assert os.listdir(tmp_path) == []
