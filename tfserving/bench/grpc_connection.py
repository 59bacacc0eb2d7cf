"""gRPC over HTTP/2 for the load generator: unary calls with prepared bytes.

The client allows no dynamic header table (SETTINGS_HEADER_TABLE_SIZE=0), so each block of headers can be
decoded without those before it: the blocks that do not matter are skipped, and known ones are looked up.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple
from urllib.parse import unquote

import grpc
import hpack

from tfserving.bench.load_connection import ConnectionLostError, LoadConnection, LoadTarget

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_SETTING_TABLE_SIZE, _SETTING_PUSH, _SETTING_WINDOW, _SETTING_FRAME_SIZE = 1, 2, 4, 5
_DEFAULT_WINDOW, _DEFAULT_FRAME_SIZE, _LARGEST_WINDOW = 65535, 16384, 2**31 - 1
# Bytes of a body that are framed at a time.
_SLICE = 262144
# Bytes of received bodies after which the server may send as many again.
_REFILL = 2**30
_MOST_OUTCOMES = 1000

# The length of a frame in two parts, its type, its flags and its stream.
_FRAME = struct.Struct(">BHBBI")
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class GrpcRequest(NamedTuple):
    """A block of headers, and a message with its length."""

    headers: bytes
    body: bytes


def prepare(target: LoadTarget, path: str, body: bytes) -> GrpcRequest:
    """The request of a unary call."""
    headers = [
        (":method", "POST"),
        (":scheme", "http" if target.tls_name is None else "https"),
        (":path", target.prefix + path),
        (":authority", target.authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "tfserving-bench"),
        *target.headers,
    ]
    # marked as sensitive, a header is written without the dynamic table, so that the block can be repeated
    block = hpack.Encoder().encode([(name, value, True) for name, value in headers], huffman=False)
    return GrpcRequest(block, struct.pack(">BI", 0, len(body)) + body)


class GrpcConnection(LoadConnection):
    """A connection for the requests of `prepare`; each is a stream, one after the other."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        settings = struct.pack(
            ">HIHIHI", _SETTING_TABLE_SIZE, 0, _SETTING_PUSH, 0, _SETTING_WINDOW, _LARGEST_WINDOW
        )
        # Frames to send before all else.
        self._control = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            _frame(_SETTINGS, 0, 0, settings),
            _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW)),
        ]
        self._stream = -1
        self._headers = b""
        self._body: bytes = b""
        self._position = 0
        self._window = self._stream_window = self._initial_window = _DEFAULT_WINDOW
        self._frame_size = _DEFAULT_FRAME_SIZE
        self._buffer = b""
        self._block: bytes | None = None
        self._received = 0
        self._outcomes: dict[bytes, str] = {}

    def start(self, request: GrpcRequest) -> None:
        """See `LoadConnection.start`."""
        self.is_busy = True
        self._stream += 2
        self._stream_window = self._initial_window
        self._headers, self._body = request
        self._position = 0
        self._flush()

    def _next_bytes(self) -> bytes:
        parts, self._control = self._control, []
        if self._headers:
            parts.append(_frame(_HEADERS, _END_HEADERS, self._stream, self._headers))
            self._headers = b""
        body, position = self._body, self._position
        size = len(body)
        end = min(size, position + _SLICE, position + self._window, position + self._stream_window)
        while position < end:
            step = min(end - position, self._frame_size)
            flags = _END_STREAM if position + step == size else 0
            parts += (
                _FRAME.pack(step >> 16, step & 0xFFFF, _DATA, flags, self._stream),
                body[position : position + step],
            )
            position += step
        self._window -= position - self._position
        self._stream_window -= position - self._position
        self._position = position
        return b"".join(parts)

    def _read(self, data: bytes) -> str | None:
        data = self._buffer + data if self._buffer else data
        position, size = 0, len(data)
        outcome: str | None = None
        while size - position >= 9:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, position)
            end = position + 9 + (high << 16 | low)
            if end > size:
                break
            is_current = stream == self._stream and self.is_busy
            found: str | None = None
            if kind == _DATA:
                self._received += end - position - 9
                if is_current and flags & _END_STREAM:
                    found = self._complete("UNKNOWN: the response has no status")
            elif kind in (_HEADERS, _CONTINUATION):
                if is_current:
                    found = self._read_headers(kind, flags, data[position + 9 : end])
            elif kind == _RST_STREAM:
                if is_current:
                    (code,) = struct.unpack_from(">I", data, position + 9)
                    found = self._complete(f"UNAVAILABLE: the server reset the stream (error {code})")
            else:
                found = self._read_control(kind, flags, stream, data[position + 9 : end])
            if found is not None:  # "" is success
                outcome = found
            position = end
        self._buffer = data[position:]
        if self._received > _REFILL:
            self._control.append(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        if outcome is not None and not self.is_reusable:
            return outcome
        if not self.is_busy and not self.is_reusable:
            raise ConnectionLostError("the server closed the connection")
        if self._control or (self._position < len(self._body) and not self._unsent):
            self._flush()
        return outcome

    def _read_headers(self, kind: int, flags: int, block: bytes) -> str | None:
        """Read a block; those without a status, at the begin of a response, are skipped."""
        if kind == _HEADERS:
            if flags & _PADDED:
                block = block[1 : len(block) - block[0]]
            if flags & _PRIORITY:
                block = block[5:]
            self._block = b"" if flags & _END_STREAM else None
        if self._block is None:
            return None
        self._block += block
        if not flags & _END_HEADERS:
            return None
        block, self._block = self._block, None
        outcome = self._outcomes.get(block)
        if outcome is None:
            if len(self._outcomes) >= _MOST_OUTCOMES:
                self._outcomes.clear()
            outcome = self._outcomes[block] = _outcome_of(block)
        return self._complete(outcome)

    def _complete(self, outcome: str) -> str:
        self.is_busy = False
        if self._position < len(self._body):  # the rest of the body would have to be sent or cancelled
            self.is_reusable = False
            self._position = len(self._body)
        return outcome

    def _read_control(self, kind: int, flags: int, stream: int, payload: bytes) -> str | None:
        if kind == _PING and not flags & _ACK:
            self._control.append(_frame(_PING, _ACK, 0, payload))
        elif kind == _SETTINGS and not flags & _ACK:
            self._read_settings(payload)
            self._control.append(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _WINDOW_UPDATE:
            (count,) = struct.unpack(">I", payload)
            if stream == 0:
                self._window += count
            elif stream == self._stream:
                self._stream_window += count
        elif kind == _GOAWAY:
            self.is_reusable = False
            last, code = struct.unpack_from(">II", payload)
            if self.is_busy and last & _LARGEST_WINDOW < self._stream:
                text = payload[8:].decode(errors="replace") or f"error {code}"
                return self._complete(f"UNAVAILABLE: the server closed the connection ({text})")
        return None

    def _read_settings(self, payload: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _SETTING_WINDOW:
                self._stream_window += value - self._initial_window
                self._initial_window = value
            elif key == _SETTING_FRAME_SIZE:
                self._frame_size = value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def _outcome_of(block: bytes) -> str:
    """The outcome in the last block of headers of a response."""
    decoder = hpack.Decoder()
    decoder.header_table_size = 0
    try:
        headers = {str(name): str(value) for name, value in decoder.decode(block)}
    except hpack.HPACKError as error:
        raise ConnectionLostError(f"the headers of the response are not valid: {error}") from error
    status = headers.get("grpc-status")
    if status == "0":
        return ""
    if status is None:
        http = headers.get(":status")
        return f"HTTP {http}: the response is not gRPC" if http else "UNKNOWN: the response has no status"
    name = _CODES.get(int(status) if status.isdigit() else -1, status)
    return f"{name}: {unquote(headers.get('grpc-message', ''))}"
