"""Creates the context of each REST request, and serves the page beside the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from tfserving.server.observability.observability import Page
from tfserving.server.request_context import REST, Observer, RequestContext
from tfserving.server.rest.json_response import JsonResponse

Handle = Callable[[RequestContext, web.BaseRequest], Awaitable[JsonResponse]]


def instrument(
    handle: Handle, observers: Sequence[Observer], page: Page | None = None
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """A handler for aiohttp that notifies the observers of every request but those for the page."""

    async def instrumented(request: web.BaseRequest) -> web.StreamResponse:
        if page is not None and request.raw_path.partition("?")[0] == page.path:
            text = await asyncio.to_thread(page.text)
            headers = {"Content-Type": page.content_type, "Server": "tfserving"}
            return web.Response(body=text, headers=headers)
        peer = (request.remote or "") if observers else ""
        with RequestContext(REST, peer=peer, observers=observers) as context:
            response = await handle(context, request)
            context.response_bytes = len(response.body)
            return response

    return instrumented
