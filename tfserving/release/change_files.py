"""The files of a change: models.config, which is replaced by rename, and the record of a begun change.

They are beside models.config, hidden, and named after it: `.lock`; `.begun` or `.verified`, the record of a
change that has not ended; `.before`, the file before it; `.pruning`, the record of a prune that has not
ended; `.new` and `.tmp`, which are being written. Only the lock is left when a change has ended.
docs/decisions/0026-write-ahead-record-of-changes.md has the reasons.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tfserving.errors import FailedPreconditionError, RepositoryError
from tfserving.release.config_edit import encode_config, read_config_file

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed because a file system or a quota has no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class ConfigChangedError(FailedPreconditionError):
    """Somebody else edited models.config during a change; their version of the file is kept."""


class ChangeFiles:
    """The files of changes of one models.config. Only the holder of the lock may use the methods.

    Args:
        config: the models.config; a link is resolved, so that its target is replaced.
    """

    def __init__(self, config: Path) -> None:
        self.config = Path(os.path.realpath(config))
        prefix = f".{self.config.name}"
        self.lock = self.config.with_name(f"{prefix}.lock")
        self._begun = self.config.with_name(f"{prefix}.begun")
        self._verified = self.config.with_name(f"{prefix}.verified")
        self._pruning = self.config.with_name(f"{prefix}.pruning")
        self._before = self.config.with_name(f"{prefix}.before")
        self._new = self.config.with_name(f"{prefix}.new")
        self._temporary = self.config.with_name(f"{prefix}.tmp")

    def read_config(self) -> str:
        """The text of the file; raises as `read_config_file` does."""
        return read_config_file(self.config)

    def begin(self, record: Mapping[str, Any]) -> None:
        """Write the record of a change, before anything else is changed.

        Raises:
            RepositoryError: it cannot be written; nothing is left.
        """
        try:
            self._before.unlink(missing_ok=True)
            try:
                # Going back is then a rename, which needs no space on a full disk.
                os.link(self.config, self._before)
            except OSError:  # a file system without hard links
                shutil.copy2(self.config, self._before)
            self._write(self._begun, json.dumps(record).encode())
        except OSError as error:
            with suppress(OSError):
                self._before.unlink(missing_ok=True)
                self._temporary.unlink(missing_ok=True)
            raise RepositoryError(
                f"cannot write to {self.config.parent}: {error.strerror}; nothing was changed"
            ) from error

    def read_record(self) -> tuple[dict[str, Any] | None, bool]:
        """The record of a change that has not ended, if there is one, and whether it was verified."""
        for path, verified in ((self._verified, True), (self._begun, False)):
            with suppress(FileNotFoundError):
                record: dict[str, Any] = json.loads(path.read_bytes())
                return record, verified
        return None, False

    def mark_verified(self) -> None:
        """Note that the change is in force, so that it is not undone any more; needs no space."""
        os.replace(self._begun, self._verified)
        self._sync_directory()

    def end(self) -> None:
        """Remove everything but models.config."""
        for path in (self._new, self._temporary, self._before, self._begun, self._verified):
            path.unlink(missing_ok=True)
        self._sync_directory()

    def begin_prune(self, record: Mapping[str, Any]) -> bool:
        """Write the record of a prune, before any version is renamed; False if the disk is full.

        Raises:
            RepositoryError: it cannot be written for another reason; nothing is left.
        """
        try:
            self._write(self._pruning, json.dumps(record).encode())
        except OSError as error:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            if is_disk_full(error):
                return False
            raise RepositoryError(
                f"cannot write to {self.config.parent}: {error.strerror}; nothing was deleted"
            ) from error
        return True

    def read_prune(self) -> dict[str, Any] | None:
        """The record of a prune that has not ended; None if there is none."""
        with suppress(FileNotFoundError):
            record: dict[str, Any] = json.loads(self._pruning.read_bytes())
            return record
        return None

    def end_prune(self) -> None:
        """Remove the record of a prune."""
        self._pruning.unlink(missing_ok=True)
        self._sync_directory()

    def replace_config(self, text: str, *, expected: str) -> None:
        """Replace the text `expected` of models.config with another.

        Raises:
            ConfigChangedError: the file has another text, which is kept.
            OSError: the file cannot be written; it is as before.
        """
        if self.read_config() != expected:
            raise self._changed()
        if text == expected:
            return
        self._write(self._new, encode_config(text), like=self.config)
        # An editor may have saved the file since it was read, so look at what the rename replaces.
        if _exchange(self._new, self.config):
            if self._new.read_bytes() != encode_config(expected):
                _exchange(self._new, self.config)
                raise self._changed()
            self._new.unlink()
        else:
            os.replace(self._new, self.config)
        self._sync_directory()

    def restore_config(self, text: str, *, expected: str) -> None:
        """Put the text from before the change back, without needing space; raises as `replace_config`."""
        if self.read_config() != expected:
            raise self._changed()
        if text == expected:
            return
        if self._before.exists() and self._before.read_bytes() == encode_config(text):
            os.replace(self._before, self.config)
            self._sync_directory()
        else:
            self.replace_config(text, expected=expected)

    def rescue_edit(self, known: set[str]) -> None:
        """Put back what an interrupted `replace_config` took for the old file, if it is none of `known`."""
        if self._new.exists() and self._new.read_bytes() not in {encode_config(text) for text in known}:
            os.replace(self._new, self.config)
            self._sync_directory()

    def _changed(self) -> ConfigChangedError:
        return ConfigChangedError(
            f"{self.config} was edited by another program during the change; its present content is kept; "
            "run the command again"
        )

    def _write(self, path: Path, data: bytes, like: Path | None = None) -> None:
        """Write a file that is complete as soon as it is there."""
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            if like is not None:
                status = like.stat()
                with suppress(PermissionError):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, status.st_mode & 0o7777)
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(self._temporary, path)
        self._sync_directory()

    def _sync_directory(self) -> None:
        descriptor = os.open(self.config.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # some network file systems cannot
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two files in one step; False if C library, kernel or file system cannot."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
