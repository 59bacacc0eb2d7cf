"""One change of a models.config at a time; the kernel releases the lock when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tfserving.errors import DeadlineError, RepositoryError

_POLL_SECONDS = 0.02


@contextmanager
def hold_change_lock(
    path: Path, holder: str, *, timeout: float, report: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Hold the lock for the duration of the context.

    Args:
        path: the lock file, which stays where it is and says who holds the lock.
        holder: who does what since when, for the messages of those who wait.
        timeout: seconds to wait for another holder.
        report: called once with a message if there is something to wait for.

    Raises:
        DeadlineError: another process holds the lock; the message names it.
        RepositoryError: the file cannot be created.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RepositoryError(
            f"cannot write {path}: {error.strerror}; nothing was changed; make its directory writable for you"
        ) from error
    try:
        _wait(descriptor, path, timeout, report)
        with suppress(OSError):  # a full disk: the name is only information
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        yield
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, timeout: float, report: Callable[[str], None]) -> None:
    deadline = time.monotonic() + timeout
    reported = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        except OSError as error:
            raise RepositoryError(f"cannot lock {path}: {error.strerror}; nothing was changed") from error
        holder = os.pread(descriptor, 4096, 0).decode(errors="replace") or "another process"
        if time.monotonic() >= deadline:
            raise DeadlineError(
                f"{path.parent} is being changed by {holder}; nothing was changed after {timeout:g} s of "
                "waiting; try again when it has finished, or wait longer with --timeout"
            )
        if not reported:
            report(f"waiting for {holder}")
            reported = True
        time.sleep(_POLL_SECONDS)
