"""HTTP/2 requests with any headers and frames, also invalid ones that no library sends."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def encode_headers(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """HPACK without compression: each field as a literal with a new name."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in headers)


def _string(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes([length]) + text
    encoded, length = b"\x7f", length - 127
    while length >= 128:
        encoded, length = encoded + bytes([length % 128 + 128]), length // 128
    return encoded + bytes([length]) + text


def exchange(connection: ssl.SSLSocket, frames: bytes, streams: Sequence[int] = (1,)) -> set[int]:
    """Send frames; return the kinds of frames received until all streams or the connection end."""
    open_streams = set(streams)
    kinds: set[int] = set()
    try:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + frames)
        received = b""
        while True:
            while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3], "big")):
                kind, flags, stream = struct.unpack(">BBI", received[3:9])
                kinds.add(kind)
                received = received[9 + size :]
                ends = kind in (DATA, HEADERS) and flags & END_STREAM
                if ends or kind == RST_STREAM:
                    open_streams.discard(stream)
                if kind == GOAWAY or not open_streams:
                    return kinds
            data = connection.recv(65536)
            if not data:
                return kinds
            received += data
    except (TimeoutError, ConnectionError, ssl.SSLError):
        return kinds
