"""Versions on disk: which directories are versions, which are complete, and how a new one comes to be.

A version is `BASE_PATH/INTEGER/`, a SavedModel. A server loads it as soon as it sees it, so a new version is
written under a name that is no integer and gets its number by one rename.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tfserving.errors import RepositoryError

# Where the official image keeps its models, and so what base_path begins with in a models.config.
MODELS_ROOT = "/models"

MAX_VERSION = 2**63 - 1

# A staging directory in which nothing changed for so long belongs to an export that was killed.
LEFTOVER_SECONDS = 24 * 60 * 60.0

# absl::SimpleAtoi, with which file_system_storage_path_source.cc of TensorFlow Serving 2.20 reads the names.
_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*", re.ASCII)

_SHARD = re.compile(r"(?P<prefix>.+)\.data-[0-9]{5}-of-(?P<count>[0-9]{5})", re.ASCII)

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


def resolve(base_path: str, models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The directory that `base_path` of a models.config means on this machine.

    `/models` and what is under it is looked up under `models_dir`; every other path, and every path when
    there is no `models_dir`, is itself. `..` is resolved first and by name, so no path leaves `models_dir`.

    Raises:
        RepositoryError: a path that is relative or a URI, which no engine of ours can serve.
    """
    if "://" in base_path:
        raise RepositoryError(
            f"base_path {base_path!r} is a URI: copy the model to {MODELS_ROOT}/NAME and name that"
        )
    if not base_path.startswith("/"):
        raise RepositoryError(f"base_path {base_path!r} is relative: write {MODELS_ROOT}/NAME")
    path = PurePosixPath("/" + os.path.normpath(base_path).lstrip("/"))
    if models_dir is None or not path.is_relative_to(MODELS_ROOT):
        return Path(path)
    return Path(models_dir) / path.relative_to(MODELS_ROOT)


def parse_version(name: str) -> int | None:
    """The version that a directory's name stands for, None for a name that TensorFlow Serving ignores.

    As the real server does: `7`, `007` and ` 7` are 7; `v7`, `7.0` and integers beyond 64 bits are ignored.
    """
    match = _INTEGER.fullmatch(name)
    if match is None:
        return None
    version = int(match[1])
    return version if -MAX_VERSION - 1 <= version <= MAX_VERSION else None


def find_versions(base_path: str | os.PathLike[str]) -> dict[int, Path]:
    """The versions under `base_path` and their directories, ascending; a symbolic link to a directory counts.

    Where two names stand for one number (`1` and `01`) the last one in the order of names is taken, as the
    real server does.

    Raises:
        RepositoryError: `base_path` is no directory or cannot be read. An empty one is no error.
    """
    found: dict[int, Path] = {}
    for path in _children(base_path):
        version = parse_version(path.name)
        if version is not None and os.path.isdir(path):
            found[version] = path
    return dict(sorted(found.items()))


def list_versions(base_path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The versions under `base_path`, ascending. Raises as `find_versions` does."""
    return tuple(find_versions(base_path))


def next_version(base_path: str | os.PathLike[str]) -> int:
    """One more than the largest number in use under `base_path`, 1 where there is none or no such directory.

    Raises:
        RepositoryError: `base_path` cannot be read, or the largest number is the largest that there is.
    """
    if not os.path.lexists(base_path):
        return 1
    # Files count as well: a file named 3 is no version, but it stands where version 3 would go.
    numbers = [version for path in _children(base_path) if (version := parse_version(path.name)) is not None]
    largest = max(numbers, default=0)
    if largest >= MAX_VERSION:
        raise RepositoryError(
            f"{os.fspath(base_path)}: no version follows {largest}: choose a number yourself"
        )
    return max(largest, 0) + 1


def check_version_dir(path: str | os.PathLike[str]) -> None:
    """Makes sure that `path` holds a whole SavedModel, as far as the names and sizes of its files tell.

    Raises:
        RepositoryError: no directory, no or an empty saved_model.pb, or variables of which a part is missing.
    """
    flaw = flaw_of(path)
    if flaw is not None:
        raise RepositoryError(f"{os.fspath(path)} {flaw}: copy or export the model again")


def flaw_of(path: str | os.PathLike[str]) -> str | None:
    """What makes `path` no whole SavedModel, as the end of a sentence about it; None when nothing does."""
    path = Path(path)
    try:
        if not path.is_dir():
            return "is no directory"
        if not (path / "saved_model.pb").is_file():
            return "has no saved_model.pb"
        if (path / "saved_model.pb").stat().st_size == 0:
            return "has an empty saved_model.pb"
        return _flaw_of_variables(path / "variables")
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def staging_dir(base_path: str | os.PathLike[str]) -> Path:
    """Makes an empty directory in which to write a version that `publish` will then give its number.

    It lies under `base_path`, which is made when missing, so that publishing is a rename within one file
    system; its name begins with a dot, so servers ignore it. What killed exports left there is removed.

    Raises:
        RepositoryError: the directory cannot be made.
    """
    staging = _staging_path(base_path)
    _make_staging(staging)
    return staging


@contextlib.contextmanager
def staged(base_path: str | os.PathLike[str]) -> Iterator[Path]:
    """A `staging_dir` that is gone when the block ends without having published it, Ctrl-C included."""
    staging = _staging_path(base_path)
    # Named before it is made, so that an interrupt right after it is made finds it.
    try:
        _make_staging(staging)
        yield staging
    finally:
        _discard(staging)


def publish(
    staging: str | os.PathLike[str], base_path: str | os.PathLike[str], version: int | None = None
) -> Path:
    """Makes what was written in `staging` version `version` of `base_path`, by one rename; returns its path.

    Files are on disk before the version is seen. A version that exists is never overwritten, not even an
    empty directory, nor when two writers publish at the same time. With no `version` it becomes the next one.

    Raises:
        RepositoryError: the version exists, `staging` is no whole SavedModel, or the disk refuses. Whatever
            is raised, `staging` is removed.
    """
    staging, base = Path(staging), Path(base_path)
    try:
        if version is not None and not 0 <= version <= MAX_VERSION:
            raise RepositoryError(f"version {version} is out of range: choose one from 0 to {MAX_VERSION}")
        check_version_dir(staging)
        _sync_tree(staging)
        while True:
            target = base / str(next_version(base) if version is None else version)
            try:
                _rename_new(staging, target)
                break
            except FileExistsError as error:
                if version is not None:
                    raise RepositoryError(
                        f"{target} exists and versions are never overwritten: "
                        f"publish it as another one, the next is {next_version(base)}"
                    ) from error
        _sync(base)
        return target
    except OSError as error:
        raise RepositoryError(f"{base}: cannot publish ({error.strerror}): {staging} was removed") from error
    finally:
        _discard(staging)


def remove_leftovers(
    base_path: str | os.PathLike[str],
    *,
    older_than: float = LEFTOVER_SECONDS,
    now: float | None = None,
) -> tuple[Path, ...]:
    """Removes the staging directories of `base_path` in which nothing changed for `older_than` seconds.

    `now` is in seconds since the epoch, as `time.time()` gives it. Returns what was removed.
    """
    base = Path(base_path)
    limit = (time.time() if now is None else now) - older_than
    removed = []
    for path in _children(base):
        if (
            path.name.startswith(_staging_prefix(base))
            and not path.is_symlink()
            and _last_change(path) < limit
        ):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return tuple(removed)


def _staging_path(base_path: str | os.PathLike[str]) -> Path:
    base = Path(base_path)
    return base / f"{_staging_prefix(base)}{secrets.token_hex(4)}"


def _make_staging(staging: Path) -> None:
    base = staging.parent
    try:
        base.mkdir(parents=True, exist_ok=True)
        remove_leftovers(base)
        # Not tempfile.mkdtemp: its mode 0700 would keep a container's user from reading the version.
        staging.mkdir()
    except OSError as error:
        raise RepositoryError(
            f"{base}: cannot be written ({error.strerror}): choose another directory"
        ) from error


def _staging_prefix(base: Path) -> str:
    return f".{base.absolute().name}.staging-"


def _children(base_path: str | os.PathLike[str]) -> list[Path]:
    try:
        return [Path(base_path, name) for name in sorted(os.listdir(base_path))]
    except OSError as error:
        raise RepositoryError(
            f"{os.fspath(base_path)}: cannot be listed ({error.strerror}): a directory of versions is needed"
        ) from error


def _flaw_of_variables(variables: Path) -> str | None:
    if not variables.is_dir():
        return None  # a model without variables has none
    names = {path.name for path in variables.iterdir()}
    shards = {name: match for name in names if (match := _SHARD.fullmatch(name))}
    indexes = {name.removesuffix(".index") for name in names if name.endswith(".index")}
    for match in shards.values():
        if match["prefix"] not in indexes:
            return f"lacks variables/{match['prefix']}.index"
    for prefix in sorted(indexes):
        counts = {match["count"] for match in shards.values() if match["prefix"] == prefix}
        count = max(counts, default="00001")
        for number in range(int(count)):
            name = f"{prefix}.data-{number:05d}-of-{count}"
            if name not in names:
                return f"lacks variables/{name}"
    return None


def _last_change(path: Path) -> float:
    """The newest modification time in a tree, in seconds since the epoch; of now where it cannot be told."""
    try:
        newest = path.stat().st_mtime
        for directory, _, files in os.walk(path):
            times = [os.lstat(os.path.join(directory, name)).st_mtime for name in files]
            newest = max(newest, os.stat(directory).st_mtime, *times)
        return newest
    except OSError:
        return float("inf")


def _discard(staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    # The base path too when nothing else is in it: the failed export made it.
    with contextlib.suppress(OSError):
        staging.parent.rmdir()


def _sync_tree(path: Path) -> None:
    for directory, _, files in os.walk(path):
        for name in files:
            file = Path(directory, name)
            if stat.S_ISREG(file.lstat().st_mode):
                _sync(file)
        _sync(Path(directory))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems sync no directories: the rename holds all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _rename_new(source: Path, target: Path) -> None:
    """Renames a directory, failing with FileExistsError when `target` exists in any form."""
    if _rename_no_replace(source, target):
        return
    # Without the system call: rename(2) still refuses anything but an empty directory.
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise


def _rename_no_replace(source: Path, target: Path) -> bool:
    """renameat2(2) with RENAME_NOREPLACE; False where C library, kernel or file system has no such call."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))
