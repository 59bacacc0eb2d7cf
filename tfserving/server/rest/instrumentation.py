"""Creates the context of each REST request, and serves the page beside the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tfserving.server.http.http_messages import HttpRequest, HttpResponse
from tfserving.server.observability.observability import Page
from tfserving.server.request_context import REST, Observer, RequestContext
from tfserving.server.rest import responses

Handle = Callable[[RequestContext, HttpRequest], Coroutine[Any, Any, HttpResponse]]


def instrument(
    handle: Handle, observers: Sequence[Observer], page: Page | None = None
) -> Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]:
    """A handler for `HttpServer` that notifies the observers of every request but those for the page."""

    async def instrumented(request: HttpRequest) -> HttpResponse:
        if page is not None and request.target.partition("?")[0] == page.path:
            if not request.body.is_complete:  # it would arrive, unread, while the page is written
                return HttpResponse(responses.encode_error("the page takes no body; send a GET request"), 400)
            return HttpResponse(await asyncio.to_thread(page.text), content_type=page.content_type)
        with RequestContext(REST, peer=request.peer, observers=observers) as context:
            response = await handle(context, request)
            context.response_bytes = len(response.body)
            return response

    return instrumented
