"""Versions on disk: which directories are versions, and how to publish a new one.

A version is a SavedModel in `BASE_PATH/INTEGER/`. Servers load it as soon as it appears, so a new version is
written to a staging directory, whose name is not an integer, and then renamed to its number.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tfserving.errors import InvalidInputError, RepositoryError
from tfserving.repository.completeness import check_version_dir
from tfserving.repository.model_names import is_name, quote

log = logging.getLogger(__name__)

# The model repository in the official image, and so the beginning of each base_path in a models.config.
MODELS_ROOT = "/models"

MAX_VERSION = 2**63 - 1

# In the name of a staging directory that its process keeps locked. Without the lock, the process was killed,
# unless it has only just created the directory.
_LOCKED = "locked-"
_UNLOCKED_SECONDS = 10.0

# A staging directory without a change for this long belongs to an export that was killed.
_LEFTOVER_SECONDS = 24 * 60 * 60.0

# In the name of a version that is being deleted.
_WITHDRAWN = ".withdrawn-"

# What absl::SimpleAtoi accepts, which file_system_storage_path_source.cc of TensorFlow Serving 2.20 uses.
_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*", re.ASCII)

_URI = re.compile(r"(?P<scheme>[a-zA-Z][0-9a-zA-Z.]*)://", re.ASCII)

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


def resolve(base_path: str, models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The directory on this machine for a base_path of a models.config.

    `/models` stands for `models_dir`. Other paths do not change, nor does any path without a `models_dir`.
    `..` is resolved first and by name, so no path leaves `models_dir`. `file:///models/NAME` is
    `/models/NAME`.

    Raises:
        RepositoryError: the path is relative, or a URI other than `file://`.
    """
    local = local_path(base_path)
    if local is None:
        raise RepositoryError(
            f"base_path {quote(base_path)} is a URI of another file system; "
            f"copy the model to {MODELS_ROOT}/NAME and write that"
        )
    if not local.startswith("/"):
        raise RepositoryError(f"base_path {quote(base_path)} is relative; write {MODELS_ROOT}/NAME")
    path = PurePosixPath("/" + os.path.normpath(local).lstrip("/"))
    if models_dir is None or not path.is_relative_to(MODELS_ROOT):
        return Path(path)
    return Path(models_dir) / path.relative_to(MODELS_ROOT)


def is_uri(base_path: str) -> bool:
    """Whether a base_path is a URI, as tensorflow/core/platform/path.cc decides."""
    return _URI.match(base_path) is not None


def local_path(base_path: str) -> str | None:
    """The path of a base_path, also if it is a `file://` URI, whose host is ignored; None for other URIs."""
    match = _URI.match(base_path)
    if match is None:
        return base_path
    return "/" + base_path[match.end() :].partition("/")[2] if match["scheme"] == "file" else None


def parse_version(name: str) -> int | None:
    """The version of a directory with this name, None for a name that tensorflow_model_server ignores.

    `7`, `007` and ` 7` are version 7; `v7`, `7.0` and integers that do not fit into 64 bits are ignored.
    """
    match = _INTEGER.fullmatch(name)
    if match is None:
        return None
    version = int(match[1])
    return version if -MAX_VERSION - 1 <= version <= MAX_VERSION else None


def find_versions(base_path: str | os.PathLike[str]) -> dict[int, Path]:
    """The versions in `base_path` and their directories, in ascending order; links to directories count.

    Of two names for one number (`1` and `01`), the last in alphabetical order wins, as in
    tensorflow_model_server.

    Raises:
        RepositoryError: `base_path` is not a directory or not readable. An empty directory is no error.
    """
    found, vanished = _find_directories(base_path)
    if vanished:  # with `base_path` itself, if it was moved meanwhile: then this raises
        found, _ = _find_directories(base_path)
    return dict(sorted(found.items()))


def _find_directories(base_path: str | os.PathLike[str]) -> tuple[dict[int, Path], bool]:
    """The directories of versions, and whether one that was listed no longer exists."""
    found: dict[int, Path] = {}
    vanished = False
    for path in _children(base_path):
        version = parse_version(path.name)
        if version is None:
            continue
        if os.path.isdir(path):
            found[version] = path
        else:
            vanished = vanished or not os.path.lexists(path)
    return found, vanished


def list_versions(base_path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The versions in `base_path` in ascending order; raises as `find_versions` does."""
    return tuple(find_versions(base_path))


def list_models(models_dir: str | os.PathLike[str]) -> tuple[str, ...]:
    """The directories with versions in a model repository, by name; none if it is not readable."""
    found = []
    with contextlib.suppress(RepositoryError):
        for path in _children(models_dir):
            with contextlib.suppress(RepositoryError):
                if is_name(path.name) and path.is_dir() and find_versions(path):
                    found.append(path.name)
    return tuple(found)


def next_version(base_path: str | os.PathLike[str]) -> int:
    """One more than the largest number in use in `base_path`; 1 if there is none, or no such directory.

    Raises:
        RepositoryError: `base_path` is not readable, or the largest possible number is in use.
    """
    if not os.path.lexists(base_path):
        return 1
    # Files count as well: a file named 3 is not a version, but version 3 could not be published.
    numbers = [version for path in _children(base_path) if (version := parse_version(path.name)) is not None]
    largest = max(numbers, default=0)
    if largest >= MAX_VERSION:
        raise RepositoryError(
            f"{os.fspath(base_path)} has version {largest}, the largest possible; choose an unused number"
        )
    return max(largest, 0) + 1


@contextlib.contextmanager
def stage_version(base_path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty directory to write a version into; removed at the end of the block unless it was published.

    It is in `base_path`, which is created if necessary, so that publishing is a rename within one file
    system. Its name begins with a dot, so servers ignore it. Leftovers of killed exports are removed and
    logged. This process holds a lock of the directory, which the kernel releases when the process is killed.

    Raises:
        RepositoryError: the directory cannot be created.
    """
    base = Path(base_path)
    staging = base / f"{_staging_prefix(base)}{_LOCKED}{secrets.token_hex(4)}"
    lock = None
    # The name is known before the directory is created, so an interrupt in between leaves nothing behind.
    try:
        try:
            _make_directories(base)
            _remove_leftovers(base)
            staging.mkdir()
            lock = _lock(staging)
        except OSError as error:
            raise RepositoryError(
                f"cannot write to {base}: {error.strerror}; choose another directory"
            ) from error
        yield staging
    finally:
        _discard(staging)
        if lock is not None:
            os.close(lock)


def publish(
    staging: str | os.PathLike[str], base_path: str | os.PathLike[str], version: int | None = None
) -> Path:
    """Rename `staging` to version `version` of `base_path`, by default the next one; returns its path.

    Everyone may read the version, whatever the umask, since the user in a container is another one. The files
    are synced to disk before the rename. A version is never overwritten: not if it is an empty directory, nor
    if two processes publish at the same time.

    Raises:
        InvalidInputError: `version` is out of range.
        RepositoryError: it exists, `staging` is not a complete SavedModel, or the rename fails.
        After any error, `staging` is removed.
    """
    staging, base = Path(staging), Path(base_path)
    try:
        if version is not None:
            _check_range(version)
        check_version_dir(staging)
        _make_readable(staging)
        _sync_tree(staging)
        while True:
            target = base / str(next_version(base) if version is None else version)
            try:
                _rename_new(staging, target)
                break
            except FileExistsError as error:
                if version is not None:
                    raise _already_exists(base, version) from error
        _sync(base)
        return target
    except OSError as error:
        raise RepositoryError(f"cannot publish to {base}: {error.strerror}; {staging} was removed") from error
    finally:
        _discard(staging)


def withdraw(version_dir: Path) -> Path:
    """Rename a version to a name that servers ignore, so that deleting it cannot leave half a version.

    Returns:
        The new path, which `find_withdrawn` finds if the process is killed before it is deleted.

    Raises:
        RepositoryError: the rename fails.
    """
    target = version_dir.with_name(f".{version_dir.name}{_WITHDRAWN}{secrets.token_hex(4)}")
    try:
        os.rename(version_dir, target)
        _sync(version_dir.parent)
    except OSError as error:
        raise RepositoryError(f"cannot rename {version_dir}: {error.strerror}; it is kept") from error
    return target


def find_withdrawn(base_path: str | os.PathLike[str]) -> list[Path]:
    """The withdrawn versions in `base_path` that are not deleted; raises as `find_versions` does."""
    return [
        path
        for path in _children(base_path)
        if path.name.startswith(".") and _WITHDRAWN in path.name and path.is_dir()
    ]


def check_unused(base_path: str | os.PathLike[str], version: int) -> None:
    """Check that `version` can be published in `base_path`, before the work of writing it.

    Raises:
        InvalidInputError: it is out of range.
        RepositoryError: it exists.
    """
    _check_range(version)
    if os.path.lexists(os.path.join(base_path, str(version))):
        raise _already_exists(Path(base_path), version)


def install_file(source: Path, target: Path) -> None:
    """Move a file into a version by one rename, readable for everyone and synced; `target` is replaced.

    Raises:
        OSError: the version cannot be written.
    """
    _add_mode(source, 0o444)
    _sync(source)
    _make_directories(target.parent)
    os.replace(source, target)
    _sync(target.parent)


def _check_range(version: int) -> None:
    if not 0 <= version <= MAX_VERSION:
        raise InvalidInputError(f"version {version} is out of range (0-{MAX_VERSION})")


def _already_exists(base: Path, version: int) -> RepositoryError:
    return RepositoryError(
        f"{base / str(version)} exists, and versions are never overwritten; "
        f"publish another version, the next is {next_version(base)}"
    )


def _remove_leftovers(base: Path) -> None:
    prefix = _staging_prefix(base)
    for path in _children(base):
        if path.name.startswith(prefix) and not path.is_symlink():
            age = time.time() - _last_change(path)
            if age > _LEFTOVER_SECONDS or (
                path.name.startswith(prefix + _LOCKED) and age > _UNLOCKED_SECONDS and not _is_locked(path)
            ):
                shutil.rmtree(path, ignore_errors=True)
                log.warning("removed %s, which an export that was killed left behind", path)


def _lock(directory: Path) -> int | None:
    """Lock a directory until the descriptor is closed; None if the file system has no locks."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_locked(directory: Path) -> bool:
    """Whether a process holds a lock of a directory; also true if that cannot be found out."""
    try:
        descriptor = _lock(directory)
    except OSError:
        return True
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _staging_prefix(base: Path) -> str:
    return f".{base.absolute().name}.staging-"


def _children(base_path: str | os.PathLike[str]) -> list[Path]:
    try:
        return [Path(base_path, name) for name in sorted(os.listdir(base_path))]
    except OSError as error:
        raise RepositoryError(
            f"cannot list {os.fspath(base_path)}: {error.strerror}; expected a directory of versions"
        ) from error


def _last_change(path: Path) -> float:
    """The newest modification time in a tree in seconds since the epoch; infinity if it is not readable."""
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
    # The base path as well if it is empty: the failed export created it.
    with contextlib.suppress(OSError):
        staging.parent.rmdir()


def _make_directories(path: Path) -> None:
    """Create a directory and its parents, readable for everyone; existing ones do not change."""
    created = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in created:
        _add_mode(one, 0o555)


def _make_readable(path: Path) -> None:
    for directory, _, files in os.walk(path):
        _add_mode(Path(directory), 0o555)
        for name in files:
            file = Path(directory, name)
            if not file.is_symlink():
                _add_mode(file, 0o444)


def _add_mode(path: Path, mode: int) -> None:
    before = stat.S_IMODE(path.stat().st_mode)
    if before | mode != before:
        path.chmod(before | mode)


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
        # Some network and FUSE file systems cannot sync directories; the rename is atomic without it.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _rename_new(source: Path, target: Path) -> None:
    """Rename a directory; FileExistsError if `target` exists as anything."""
    if _rename_no_replace(source, target):
        return
    # rename(2) itself only replaces an empty directory.
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise


def _rename_no_replace(source: Path, target: Path) -> bool:
    """renameat2(2) with RENAME_NOREPLACE; False if C library, kernel or file system does not support it."""
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
