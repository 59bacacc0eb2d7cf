"""HTTP/1.1 for the load generator: the REST API."""

from __future__ import annotations

import json
import re
from typing import Any

from tfserving.bench.load_connection import ConnectionLostError, LoadConnection, LoadTarget

_LONGEST_HEAD = 65536
# Bytes of the body of an error that are kept for its message.
_KEPT = 1000
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close|^HTTP/1\.0", re.IGNORECASE)


def prepare(target: LoadTarget, path: str, body: bytes) -> bytes:
    """The bytes of a POST request."""
    lines = [f"POST {target.prefix}{path} HTTP/1.1", f"Host: {target.authority}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in target.headers]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


class Http1Connection(LoadConnection):
    """A connection for the requests of `prepare`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._request: bytes = b""
        self._head = b""
        self._status = 0
        # Bytes of the body, or of a chunk and its line break, that are still to come; None before the head.
        self._left: int | None = None
        self._is_chunked = self._is_last_chunk = False
        self._kept = b""

    def start(self, request: bytes) -> None:
        """See `LoadConnection.start`."""
        self.is_busy = True
        self._head = self._kept = b""
        self._left = None
        self._request = request
        self._flush()

    def _next_bytes(self) -> bytes:
        request, self._request = self._request, b""
        return request

    def _read(self, data: bytes) -> str | None:
        if not self.is_busy:
            raise ConnectionLostError(f"the server sent {data[:60]!r} without a request")
        if self._left is None:
            data = self._head + data if self._head else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > _LONGEST_HEAD:
                    raise ConnectionLostError(f"the response has a head of more than {_LONGEST_HEAD} bytes")
                self._head = data
                return None
            self._read_head(data[: end + 2])
            data = data[end + 4 :]
        return self._read_chunks(data) if self._is_chunked else self._read_body(data)

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise ConnectionLostError(f"the response is not HTTP: {head[:60]!r}")
        self._status = int(head[9:12])
        length = _LENGTH.search(head)
        self._is_chunked = length is None and _CHUNKED.search(head) is not None
        if length is None and not self._is_chunked:
            raise ConnectionLostError("the response has neither Content-Length nor chunks")
        self._left = int(length[1]) if length else 0
        self._is_last_chunk = False
        self._head = b""
        if _CLOSES.search(head):
            self.is_reusable = False

    def _read_body(self, data: bytes) -> str | None:
        assert self._left is not None
        self._keep(data)
        self._left -= len(data)
        return self._complete() if self._left <= 0 else None

    def _read_chunks(self, data: bytes) -> str | None:
        assert self._left is not None
        while True:
            if self._left:
                part = data[: self._left]
                self._keep(part)
                self._left -= len(part)
                data = data[len(part) :]
                if self._left:
                    return None
                if self._is_last_chunk:
                    return self._complete()
            data, self._head = self._head + data, b""
            line, separator, rest = data.partition(b"\r\n")
            if not separator:
                self._head = data
                return None
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError as error:
                raise ConnectionLostError(f"the response has an invalid chunk: {line[:60]!r}") from error
            self._left, self._is_last_chunk, data = size + 2, size == 0, rest

    def _keep(self, data: bytes) -> None:
        if self._status != 200 and len(self._kept) < _KEPT:
            self._kept += data[:_KEPT]

    def _complete(self) -> str:
        self.is_busy = False
        self._left = None
        if self._status == 200:
            return ""
        return f"HTTP {self._status}: {_message_of(self._kept)}"


def _message_of(body: bytes) -> str:
    """The error in the body of the API, else the body."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
