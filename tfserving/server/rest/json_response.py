"""The HTTP response with a JSON body."""

from __future__ import annotations

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time

# A longer body is written after the head instead of together with it, which would copy it.
_JOINED_BYTES = 1 << 16


class JsonResponse(web.StreamResponse):
    """A JSON response that formats its own status line and headers: the general code of aiohttp takes longer.

    Attributes:
        body: the JSON text, or its compressed form with the headers for that.
    """

    def __init__(self, body: bytes, status: int = 200) -> None:
        super().__init__(status=status)
        self.body = body

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write the response; the body is omitted for HEAD."""
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        head = self._format_head(request)
        body = b"" if request.method == "HEAD" else self.body
        writer = self._writer = request.writer
        if len(body) > _JOINED_BYTES:
            await writer.write(head)
            await writer.write(body)
        else:
            await writer.write(head + body)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait until the client has read enough; there is nothing left to write."""
        await self._writer.drain()

    def _format_head(self, request: web.BaseRequest) -> bytes:
        major, minor = request.version
        further = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        if not self._keep_alive:
            further += "Connection: close\r\n" if request.version == HttpVersion11 else ""
        elif request.version != HttpVersion11:
            further += "Connection: keep-alive\r\n"
        return (
            f"HTTP/{major}.{minor} {self.status} {self.reason}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            f"Date: {rfc822_formatted_time()}\r\n"
            f"Server: tfserving\r\n{further}\r\n"
        ).encode()
