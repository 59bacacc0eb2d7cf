"""Bodies of REST responses: how large they may become, compressed or not."""

from __future__ import annotations

import zlib

from tfserving.errors import ExhaustedError, ProtocolError

ACCEPT_ENCODING = "gzip"
# Bytes of the limit for each array or object of the JSON. An empty one has three bytes in the body, and takes
# 80 in memory.
_BYTES_PER_CONTAINER = 16
_ALWAYS_ALLOWED_CONTAINERS = 1000


class BodyReader:
    """Collects the parts of a body and stops when it becomes too large.

    Args:
        limit: the maximum number of bytes, before and after decompression; None for no limit.
        encoding: the header Content-Encoding of the response, None if there is none.

    Raises:
        ProtocolError: the encoding is not supported.
    """

    def __init__(self, limit: int | None, encoding: str | None) -> None:
        names = [name for name in (encoding or "").lower().replace(" ", "").split(",") if name]
        names = [name for name in names if name != "identity"]
        if names not in ([], ["gzip"], ["x-gzip"]):
            raise ProtocolError(
                f"the response has the Content-Encoding {encoding!r:.60}, expected gzip or none"
            )
        self._decompressor = zlib.decompressobj(wbits=31) if names else None
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def check_length(self, length: str | None) -> None:
        """Raise ExhaustedError if the header Content-Length announces a body that is too large."""
        if self._limit is not None and length and length.isdecimal() and int(length[:20]) > self._limit:
            raise self._too_large()

    def add(self, part: bytes) -> None:
        """Add a part of the body.

        Raises:
            ExhaustedError: the body is too large.
            ProtocolError: the part is not gzip.
        """
        if self._decompressor is not None:
            most = 0 if self._limit is None else self._limit - self._size + 1
            if self._decompressor.eof:
                raise ProtocolError("the response has bytes after the end of its gzip stream")
            try:
                part = self._decompressor.decompress(part, most)
            except zlib.error as error:
                raise ProtocolError(f"the response is not valid gzip: {error}") from error
            if self._decompressor.unused_data:
                raise ProtocolError("the response has bytes after the end of its gzip stream")
        self._size += len(part)
        if self._limit is not None and self._size > self._limit:
            raise self._too_large()
        self._parts.append(part)

    def finish(self) -> bytes:
        """Return the whole body.

        Raises:
            ExhaustedError: it has more arrays and objects than fit in the memory that the limit stands for.
            ProtocolError: the gzip stream is truncated.
        """
        if self._decompressor is not None and self._parts and not self._decompressor.eof:
            raise ProtocolError("the response has a truncated gzip stream")
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if self._limit is not None:
            most = max(self._limit // _BYTES_PER_CONTAINER, _ALWAYS_ALLOWED_CONTAINERS)
            # each takes two bytes
            if len(body) > 2 * most and body.count(b"[") + body.count(b"{") > most:
                raise ExhaustedError(
                    f"the response has more than {most} arrays and objects; "
                    f"for more, pass a max_response_bytes above {self._limit}"
                )
        return body

    def _too_large(self) -> ExhaustedError:
        return ExhaustedError(
            f"the response is larger than max_response_bytes={self._limit}; "
            "pass a larger value, or None for no limit"
        )
