"""One line of JSON for each call, written by a thread of its own: a slow disk keeps no call waiting."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote

import orjson

from tfserving.errors import InvalidInputError
from tfserving.server.observability.call_context import Call

log = logging.getLogger(__name__)

STDOUT = "-"

# Lines that may wait to be written; what comes when there are so many is counted and dropped.
LIMIT = 10_000
# Characters of a name that are written: callers choose names.
_NAME_LENGTH = 256
# Seconds for which lines are gathered, to be written together.
_GATHER_SECONDS = 0.05


class AccessLog:
    """Writes every call down, as an observer of them.

    A file that was moved away or deleted is opened anew under its name before the next line, so that whoever
    rotates logs need not tell; that they copy and truncate does as well.

    Args:
        path: the file to append to, "-" for standard output.
        limit: see LIMIT.
        wall: seconds since the epoch.

    Raises:
        InvalidInputError: the file cannot be opened.
    """

    def __init__(self, path: str, *, limit: int = LIMIT, wall: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._wall = wall
        self._waiting: deque[dict[str, Any]] = deque()
        self._refused = 0  # counted in the event loop
        self._lost = 0  # counted in the thread
        self._told = 0
        self._failing = False
        self._something = threading.Event()
        self._stopping = threading.Event()
        try:
            self._file = _LogFile(path)
        except OSError as error:
            raise InvalidInputError(f"--access_log={path}: {error}") from error
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Calls that went unwritten: too many lines waited, or the file could not be written."""
        return self._refused + self._lost

    def began(self, call: Call) -> None:
        """Does nothing: a call is written when it is answered."""

    def ended(self, call: Call) -> None:
        """Has a call written, unless too many lines wait already."""
        if len(self._waiting) >= self._limit:
            self._refused += 1
            return
        asked = call.asked
        self._waiting.append(
            {
                "time": self._wall() - call.seconds,
                "api": call.api,
                "method": call.method or None,
                "model": asked.name[:_NAME_LENGTH] or None,
                "version": asked.version if call.version is None else call.version,
                "signature": (call.signature or asked.signature)[:_NAME_LENGTH] or None,
                "status": call.status,
                "latency_ms": round(call.seconds * 1e3, 3),
                "request_bytes": call.request_bytes,
                "response_bytes": call.response_bytes,
                "peer": call.peer,
            }
        )
        self._something.set()

    def close(self, timeout: float = 2.0) -> None:
        """Writes what waits, and gives a slow disk `timeout` seconds for it."""
        self._stopping.set()
        self._something.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._something.wait()
            self._something.clear()
            stopping = self._stopping.wait(_GATHER_SECONDS)
            self._write()

    def _write(self) -> None:
        lines = []
        while self._waiting:
            lines.append(_line(self._waiting.popleft()))
        dropped = self.dropped
        told = (
            [_line({"time": self._wall(), "dropped": dropped - self._told})] if dropped > self._told else []
        )
        error = self._file.write(b"".join(told + lines))
        if error is not None and not self._failing:
            log.error("--access_log: %s; until that is mended calls go unwritten", error)
        self._failing = error is not None
        lost = min(self._file.unwritten, len(lines))
        if self._file.unwritten == lost:
            self._told = dropped
        self._lost += lost


class _LogFile:
    """A file that is appended to, wherever its name leads now.

    Attributes:
        unwritten: how many lines of the last write are not in the file.
    """

    def __init__(self, path: str) -> None:
        self.unwritten = 0
        self._path = path
        self._cut = False  # whether the file ends within a line
        self._descriptor = sys.stdout.fileno() if path == STDOUT else self._open()

    def write(self, lines: bytes) -> OSError | None:
        """Writes whole lines; gives the error that kept it from writing all of them."""
        self.unwritten = lines.count(b"\n")
        try:
            if self._path != STDOUT and not self._is_current():
                old, self._descriptor = self._descriptor, self._open()
                os.close(old)
                self._cut = False
            if self._cut:
                os.write(self._descriptor, b"\n")
                self._cut = False
            while lines:
                written = os.write(self._descriptor, lines)
                self._cut = not lines[:written].endswith(b"\n")
                lines = lines[written:]
                self.unwritten = lines.count(b"\n")
        except OSError as error:
            return error
        return None

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def _line(entry: dict[str, Any]) -> bytes:
    moment = datetime.fromtimestamp(entry["time"], timezone.utc).isoformat(timespec="milliseconds")
    entry["time"] = moment.replace("+00:00", "Z")
    if "peer" in entry:
        entry["peer"] = _address(entry["peer"]) or None
    try:
        return orjson.dumps(entry) + b"\n"
    except TypeError:  # half a surrogate pair in a name, which JSON can say but UTF-8 cannot
        return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _address(peer: str) -> str:
    """The host without the port that gRPC tells too, or what it calls a UNIX socket."""
    kind, _, address = peer.partition(":")
    return unquote(address).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer
