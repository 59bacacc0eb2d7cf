"""The REST API with its calls observed, and pages beside it that are none of its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from tfserving.server.observability import call_context
from tfserving.server.observability.call_context import Observer

Handle = Callable[[web.BaseRequest], Awaitable[web.Response]]


@dataclass(frozen=True)
class Page:
    """A page at a path of its own; `text` makes it anew for each request, in a thread."""

    path: str
    content_type: str
    text: Callable[[], bytes]


def observed(handle: Handle, observers: Sequence[Observer], pages: Sequence[Page] = ()) -> Handle:
    """The handler with its calls told to observers, and with pages; itself where there is neither."""
    if not observers and not pages:
        return handle
    by_path = {page.path: page for page in pages}

    async def observing(request: web.BaseRequest) -> web.Response:
        page = by_path.get(request.raw_path.partition("?")[0])
        if page is not None:
            text = await asyncio.to_thread(page.text)
            headers = {"Content-Type": page.content_type, "Server": "tfserving"}
            return web.Response(body=text, headers=headers)
        with call_context.Call(observers, call_context.REST, peer=request.remote or "") as call:
            response = await handle(request)
            if isinstance(response.body, bytes):
                call.response_bytes = len(response.body)
            return response

    return observing
