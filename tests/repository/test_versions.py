"""What is a version on disk, and how a new one comes to be."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfserving.errors import RepositoryError
from tfserving.repository import versions
from tfserving.repository.versions import (
    check_version_dir,
    find_versions,
    list_versions,
    next_version,
    parse_version,
    publish,
    remove_leftovers,
    resolve,
    staged,
    staging_dir,
)

Fill = Callable[[Path], None]


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
    def test_models_are_looked_up_under_models_dir(self, base_path: str, under: str, tmp_path: Path) -> None:
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
    def test_other_paths_are_themselves(self, base_path: str, path: str, tmp_path: Path) -> None:
        assert resolve(base_path, tmp_path) == Path(path)

    def test_without_models_dir_a_path_is_itself(self) -> None:
        assert resolve("/models/digits") == Path("/models/digits")

    @pytest.mark.parametrize("base_path", ["digits", "./digits", "", "models/digits"])
    def test_refuses_relative_paths(self, base_path: str) -> None:
        with pytest.raises(RepositoryError, match="is relative: write /models/NAME"):
            resolve(base_path, "models")

    def test_refuses_uris(self) -> None:
        with pytest.raises(RepositoryError, match="is a URI: copy the model"):
            resolve("gs://bucket/digits", "models")


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
def test_parse_version_reads_names_as_the_real_server(name: str, version: int | None) -> None:
    assert parse_version(name) == version


class TestFind:
    def test_ascending_by_number_not_by_name(self, models_dir: Path) -> None:
        for name in ("10", "9", "100"):
            (models_dir / "m" / name).mkdir(parents=True)
        assert list_versions(models_dir / "m") == (9, 10, 100)

    def test_only_directories_with_integer_names(self, models_dir: Path) -> None:
        base = models_dir / "m"
        for name in ("1", "v2", ".m.staging-0", "assets", "3.0"):
            (base / name).mkdir(parents=True)
        (base / "4").write_text("a file")
        assert list_versions(base) == (1,)

    def test_a_link_to_a_directory_counts_and_a_dangling_one_does_not(self, models_dir: Path) -> None:
        base = models_dir / "m"
        (base / "1").mkdir(parents=True)
        (base / "2").symlink_to(base / "1")
        (base / "3").symlink_to(base / "nothing")
        assert find_versions(base) == {1: base / "1", 2: base / "2"}

    def test_of_two_names_for_one_number_the_last_is_taken(self, models_dir: Path) -> None:
        for name in ("1", "01", "001"):
            (models_dir / name).mkdir()
        assert find_versions(models_dir) == {1: models_dir / "1"}

    def test_an_empty_base_path_has_no_versions(self, models_dir: Path) -> None:
        assert list_versions(models_dir) == ()

    def test_a_missing_base_path_is_an_error(self, models_dir: Path) -> None:
        with pytest.raises(RepositoryError, match="nothing: cannot be listed"):
            list_versions(models_dir / "nothing")

    def test_a_file_as_base_path_is_an_error(self, tmp_path: Path) -> None:
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

    def test_is_1_where_nothing_is(self, tmp_path: Path) -> None:
        assert next_version(tmp_path / "nothing") == 1

    def test_passes_over_whatever_bears_a_number(self, tmp_path: Path) -> None:
        (tmp_path / "3").write_text("a file")
        assert next_version(tmp_path) == 4

    def test_after_the_largest_integer_there_is_none(self, tmp_path: Path) -> None:
        (tmp_path / str(2**63 - 1)).mkdir()
        with pytest.raises(RepositoryError, match="no version follows 9223372036854775807: choose a number"):
            next_version(tmp_path)


class TestCheckVersionDir:
    def test_a_whole_one(self, tmp_path: Path, fill_version: Fill) -> None:
        fill_version(tmp_path / "1")
        check_version_dir(tmp_path / "1")

    def test_one_without_variables(self, tmp_path: Path) -> None:
        (tmp_path / "saved_model.pb").write_bytes(b"x")
        check_version_dir(tmp_path)
        (tmp_path / "variables").mkdir()
        check_version_dir(tmp_path)

    def test_variables_in_two_shards(self, tmp_path: Path, fill_version: Fill) -> None:
        fill_version(tmp_path / "1")
        (tmp_path / "1/variables/variables.data-00000-of-00001").unlink()
        for name in ("variables.data-00000-of-00002", "variables.data-00001-of-00002"):
            (tmp_path / "1/variables" / name).write_bytes(b"data")
        check_version_dir(tmp_path / "1")
        (tmp_path / "1/variables/variables.data-00001-of-00002").unlink()
        with pytest.raises(RepositoryError, match=r"lacks variables/variables[.]data-00001-of-00002"):
            check_version_dir(tmp_path / "1")

    @pytest.mark.parametrize(
        ("missing", "flaw"),
        [
            ("saved_model.pb", "has no saved_model.pb"),
            ("variables/variables.index", "lacks variables/variables.index"),
            ("variables/variables.data-00000-of-00001", "lacks variables/variables.data-00000-of-00001"),
        ],
    )
    def test_a_half_copied_one(self, missing: str, flaw: str, tmp_path: Path, fill_version: Fill) -> None:
        fill_version(tmp_path / "1")
        (tmp_path / "1" / missing).unlink()
        with pytest.raises(RepositoryError, match=f"/1 {flaw}: copy or export the model again"):
            check_version_dir(tmp_path / "1")

    def test_an_empty_saved_model(self, tmp_path: Path) -> None:
        (tmp_path / "saved_model.pb").touch()
        with pytest.raises(RepositoryError, match=r"has an empty saved_model\.pb"):
            check_version_dir(tmp_path)

    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(RepositoryError, match="/7 is no directory"):
            check_version_dir(tmp_path / "7")


class TestStaging:
    def test_servers_ignore_it_and_it_is_in_the_base_path(self, tmp_path: Path) -> None:
        staging = staging_dir(tmp_path / "digits")
        assert staging.parent == tmp_path / "digits"
        assert staging.name.startswith(".digits.")
        assert list_versions(tmp_path / "digits") == ()
        assert next_version(tmp_path / "digits") == 1

    def test_each_is_new(self, tmp_path: Path) -> None:
        assert staging_dir(tmp_path) != staging_dir(tmp_path)

    def test_other_users_may_read_what_is_published(self, tmp_path: Path) -> None:
        old = os.umask(0o022)
        try:
            staging = staging_dir(tmp_path)
        finally:
            os.umask(old)
        assert stat.S_IMODE(staging.stat().st_mode) == 0o755

    def test_a_base_path_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RepositoryError, match="cannot be written"):
            staging_dir(tmp_path / "file" / "digits")

    def test_the_block_leaves_nothing_behind_when_it_fails(self, tmp_path: Path) -> None:
        def interrupted_export() -> None:
            with staged(tmp_path / "digits") as staging:
                (staging / "half").write_text("written")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted_export()
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupt_right_after_it_is_made_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Path.mkdir

        def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
            original(path, *args, **kwargs)
            if path.name.startswith("."):
                raise KeyboardInterrupt

        monkeypatch.setattr(Path, "mkdir", mkdir)
        with pytest.raises(KeyboardInterrupt), staged(tmp_path / "digits"):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_the_block_keeps_what_was_there(self, tmp_path: Path, fill_version: Fill) -> None:
        fill_version(tmp_path / "digits/1")
        with pytest.raises(KeyboardInterrupt), staged(tmp_path / "digits"):
            raise KeyboardInterrupt
        assert list_versions(tmp_path / "digits") == (1,)

    def test_the_block_keeps_what_it_published(self, tmp_path: Path, fill_version: Fill) -> None:
        with staged(tmp_path / "digits") as staging:
            fill_version(staging / ".")
            path = publish(staging, tmp_path / "digits")
        check_version_dir(path)
        assert os.listdir(tmp_path / "digits") == ["1"]


class TestLeftovers:
    NOW = 2_000_000_000.0

    def age(self, path: Path, seconds: float) -> None:
        for entry in [*path.rglob("*"), path]:
            os.utime(entry, (self.NOW - seconds,) * 2, follow_symlinks=False)

    def test_old_ones_of_ours_are_removed(self, tmp_path: Path, fill_version: Fill) -> None:
        old, young = staging_dir(tmp_path), staging_dir(tmp_path)
        fill_version(old / "x")
        self.age(old, 100_000)
        self.age(young, 100)
        assert remove_leftovers(tmp_path, now=self.NOW) == (old,)
        assert not old.exists()
        assert young.exists()

    def test_one_that_is_still_written_is_kept(self, tmp_path: Path) -> None:
        staging = staging_dir(tmp_path)
        (staging / "variables").mkdir()
        (staging / "variables/data").write_text("")
        self.age(staging, 100_000)
        os.utime(staging / "variables/data", (self.NOW - 5,) * 2)
        assert remove_leftovers(tmp_path, now=self.NOW) == ()

    def test_others_are_kept(self, tmp_path: Path) -> None:
        base = tmp_path / "digits"
        for name in ("1", ".git", ".other.staging-12345678", "digits.staging-12345678"):
            (base / name).mkdir(parents=True)
        (base / ".digits.staging-12345678").symlink_to(tmp_path)
        self.age(base, 100_000)
        assert remove_leftovers(base, now=self.NOW) == ()
        assert len(os.listdir(base)) == 5

    def test_the_next_export_removes_them(self, tmp_path: Path) -> None:
        old = staging_dir(tmp_path)
        os.utime(old, (1, 1))
        staging_dir(tmp_path)
        assert not old.exists()


class TestPublish:
    def stage(self, base: Path, fill: Fill, mark: str = "") -> Path:
        staging = staging_dir(base)
        fill(staging / ".")
        (staging / "mark").write_text(mark)
        return staging

    def test_gives_the_number_by_a_rename(self, tmp_path: Path, fill_version: Fill) -> None:
        staging = self.stage(tmp_path, fill_version)
        inode = staging.stat().st_ino
        path = publish(staging, tmp_path, 7)
        assert path == tmp_path / "7"
        assert path.stat().st_ino == inode
        assert os.listdir(tmp_path) == ["7"]

    def test_takes_the_next_number(self, tmp_path: Path, fill_version: Fill) -> None:
        (tmp_path / "4").mkdir()
        assert publish(self.stage(tmp_path, fill_version), tmp_path) == tmp_path / "5"

    def test_version_0_is_a_version(self, tmp_path: Path, fill_version: Fill) -> None:
        assert publish(self.stage(tmp_path, fill_version), tmp_path, 0) == tmp_path / "0"

    @pytest.fixture(params=["renameat2", "rename"])
    def system(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both with the system call that never replaces, and without it."""
        if request.param == "rename":
            monkeypatch.setattr(versions, "_rename_no_replace", lambda source, target: False)

    @pytest.mark.usefixtures("system")
    @pytest.mark.parametrize("kind", ["version", "empty directory", "file", "dangling link"])
    def test_never_overwrites(self, kind: str, tmp_path: Path, fill_version: Fill) -> None:
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
            RepositoryError, match=r"/3 exists and versions are never overwritten: .* the next is 4"
        ):
            publish(self.stage(tmp_path, fill_version), tmp_path, 3)
        assert target.lstat().st_ino == before
        assert os.listdir(tmp_path) == ["3"]

    def test_without_the_system_call_a_version_that_appears_after_the_check_is_kept(
        self, tmp_path: Path, fill_version: Fill, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill_version(tmp_path / "3")
        staging = self.stage(tmp_path, fill_version, "late")
        monkeypatch.setattr(versions, "_rename_no_replace", lambda source, target: False)
        monkeypatch.setattr(os.path, "lexists", lambda path: False)
        with pytest.raises(RepositoryError, match="/3 exists"):
            publish(staging, tmp_path, 3)
        assert not (tmp_path / "3/mark").exists()

    def test_of_writers_at_the_same_time_one_wins(self, tmp_path: Path, fill_version: Fill) -> None:
        outcomes: list[str] = []
        start = threading.Barrier(8)

        def write(mark: str) -> None:
            staging = self.stage(tmp_path, fill_version, mark)
            start.wait()
            try:
                publish(staging, tmp_path, 1)
                outcomes.append(mark)
            except RepositoryError:
                pass

        threads = [threading.Thread(target=write, args=(str(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 1
        assert (tmp_path / "1/mark").read_text() == outcomes[0]
        assert os.listdir(tmp_path) == ["1"]

    def test_writers_without_a_number_all_get_one(self, tmp_path: Path, fill_version: Fill) -> None:
        start = threading.Barrier(8)

        def write() -> None:
            staging = self.stage(tmp_path, fill_version)
            start.wait()
            publish(staging, tmp_path)

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list_versions(tmp_path) == tuple(range(1, 9))

    def test_a_half_written_model_is_refused_and_removed(self, tmp_path: Path) -> None:
        staging = staging_dir(tmp_path / "digits")
        with pytest.raises(RepositoryError, match=r"has no saved_model\.pb"):
            publish(staging, tmp_path / "digits", 1)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("version", [-1, 2**63])
    def test_numbers_that_no_request_can_name(self, version: int, tmp_path: Path, fill_version: Fill) -> None:
        with pytest.raises(RepositoryError, match=f"version {version} is out of range"):
            publish(self.stage(tmp_path, fill_version), tmp_path, version)
        assert not tmp_path.exists()

    def test_a_disk_that_refuses(
        self, tmp_path: Path, fill_version: Fill, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(source: Path, target: Path) -> bool:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(versions, "_rename_no_replace", full)
        staging = self.stage(tmp_path / "digits", fill_version)
        with pytest.raises(
            RepositoryError, match=r"cannot publish \(No space left on device\): .* was removed"
        ):
            publish(staging, tmp_path / "digits", 1)
        assert os.listdir(tmp_path) == []
