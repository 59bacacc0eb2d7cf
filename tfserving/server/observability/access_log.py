"""The access log: one line of JSON per request. A thread writes it, so a slow disk delays no request."""

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

from tfserving.errors import ConfigError
from tfserving.server.request_context import RequestContext

log = logging.getLogger(__name__)

STDOUT = "-"

# Lines that can wait to be written; further requests are counted and dropped.
MAX_QUEUED_LINES = 10_000
# Characters of a name: clients choose names.
_MAX_NAME_LENGTH = 256
# Seconds for which lines are collected before they are written together.
_FLUSH_SECONDS = 0.05


class AccessLog:
    """An observer that logs every request.

    The file is opened again if it was renamed or deleted, so log rotation needs no signal. Rotation that
    copies and truncates works as well.

    Args:
        path: the file to append to, "-" for standard output.
        max_queued: see MAX_QUEUED_LINES.
        clock: seconds since the epoch.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(
        self, path: str, *, max_queued: int = MAX_QUEUED_LINES, clock: Callable[[], float] = time.time
    ) -> None:
        self._max_queued = max_queued
        self._clock = clock
        self._queue: deque[dict[str, Any]] = deque()
        # Each of the two counters has one writer: the event loop, and the thread.
        self._dropped_from_queue = 0
        self._dropped_by_disk = 0
        self._reported = 0  # of all dropped
        self._failing = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        try:
            self._file = _LogFile(path)
        except OSError as error:
            raise ConfigError(f"--access_log={path}: {error}") from error
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Requests without a line, because the queue was full or the file could not be written."""
        return self._dropped_from_queue + self._dropped_by_disk

    def request_started(self, context: RequestContext) -> None:
        """Do nothing: a request is logged when it ends."""

    def request_finished(self, context: RequestContext) -> None:
        """Queue the line of a request, or drop it if the queue is full."""
        if len(self._queue) >= self._max_queued:
            self._dropped_from_queue += 1
            return
        spec = context.requested_spec
        self._queue.append(
            {
                "time": self._clock() - context.seconds,
                "api": context.api,
                "method": context.method or None,
                "model": spec.name[:_MAX_NAME_LENGTH] or None,
                "version": spec.version if context.version is None else context.version,
                "signature": (context.signature or spec.signature)[:_MAX_NAME_LENGTH] or None,
                "status": context.status,
                "latency_ms": round(context.seconds * 1e3, 3),
                "request_bytes": context.request_bytes,
                "response_bytes": context.response_bytes,
                "peer": context.peer,
            }
        )
        self._wake.set()

    def close(self, timeout: float = 2.0) -> None:
        """Write the queued lines; give up after `timeout` seconds if the disk is slow."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._wake.wait()
            self._wake.clear()
            stopping = self._stopping.wait(_FLUSH_SECONDS)
            self._write()

    def _write(self) -> None:
        lines = []
        while self._queue:
            lines.append(_encode(self._queue.popleft()))
        dropped = self.dropped
        report = b""
        if dropped > self._reported:
            report = _encode({"time": self._clock(), "dropped": dropped - self._reported})
        error = self._file.write(report + b"".join(lines))
        if error is not None and not self._failing:
            log.error("--access_log: %s; requests are not logged until the file can be written", error)
        self._failing = error is not None
        lost = min(self._file.unwritten, len(lines))
        if self._file.unwritten == lost:  # the report, which comes first, was written
            self._reported = dropped
        self._dropped_by_disk += lost


class _LogFile:
    """A file to append to, found by name again before each write.

    Attributes:
        unwritten: number of lines of the last write that are not in the file.
    """

    def __init__(self, path: str) -> None:
        self.unwritten = 0
        self._path = path
        self._ends_within_line = False
        self._descriptor = sys.stdout.fileno() if path == STDOUT else self._open()

    def write(self, lines: bytes) -> OSError | None:
        """Write whole lines; return the error if not all of them could be written."""
        self.unwritten = lines.count(b"\n")
        try:
            if self._path != STDOUT and not self._is_current():
                old, self._descriptor = self._descriptor, self._open()
                os.close(old)
                self._ends_within_line = False
            if self._ends_within_line:
                os.write(self._descriptor, b"\n")
                self._ends_within_line = False
            while lines:
                written = os.write(self._descriptor, lines)
                self._ends_within_line = not lines[:written].endswith(b"\n")
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


def _encode(entry: dict[str, Any]) -> bytes:
    moment = datetime.fromtimestamp(entry["time"], timezone.utc).isoformat(timespec="milliseconds")
    entry["time"] = moment.replace("+00:00", "Z")
    if "peer" in entry:
        entry["peer"] = _host(entry["peer"]) or None
    try:
        return orjson.dumps(entry) + b"\n"
    except TypeError:  # a name with a lone surrogate, which JSON can represent but UTF-8 cannot
        return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _host(peer: str) -> str:
    """The address of a peer without scheme and port; the path of a UNIX socket is unchanged."""
    kind, _, address = peer.partition(":")
    return unquote(address).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer
