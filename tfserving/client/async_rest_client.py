"""The asyncio REST client, on aiohttp (the extra `aio`)."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp

from tfserving.client.async_client import AsyncClient
from tfserving.client.flow import Request
from tfserving.client.options import CONNECT_TIMEOUT, Tls
from tfserving.client.rest_endpoints import Endpoint
from tfserving.client.rest_transport import POOL_SIZE, RestTransport, reason_of
from tfserving.client.status_errors import NOT_HTTP, make_error
from tfserving.errors import TfServingError


class AsyncTfRestClient(RestTransport, AsyncClient):
    """`TfRestClient` for asyncio: the same arguments, and the same calls as coroutines.

        async with AsyncTfRestClient("127.0.0.1:8501", "digits") as client:
            outputs = await client.infer({"image": images})

    Close it in the event loop of its last call: aiohttp closes connections there. In a forked child the
    client opens new connections in the child's event loop; calls in flight at the fork stay with the parent.
    """

    _loop: asyncio.AbstractEventLoop | None = None

    async def _send(self, request: Request[Any]) -> bytes:
        endpoint = self._endpoints.pick()
        headers = self._headers(request.body, endpoint)
        proxy_url, proxy_headers = None, None
        if endpoint.proxy is not None:
            proxy_url, proxy_headers = endpoint.proxy.url, _proxy_headers(endpoint)
            if not endpoint.url.startswith("https:"):  # the proxy reads the request itself
                headers |= proxy_headers
        limits = aiohttp.ClientTimeout(total=request.timeout, connect=_connect_timeout(request.timeout))
        try:
            async with self._current_session().request(
                "GET" if request.body is None else "POST",
                endpoint.url + request.path,
                data=request.body,
                headers=headers,
                timeout=limits,
                allow_redirects=False,
                server_hostname=self._tls.server_name if self._tls else None,
                proxy=proxy_url,
                proxy_headers=proxy_headers,
            ) as response:
                body = await self._read_body(response)
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            self._endpoints.mark_down(endpoint)
            raise _translate(error, endpoint, request.model) from error
        return self._check_response(response.status, body, endpoint, request.model)

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        headers = response.headers
        reader = self._make_body_reader(headers.get("content-encoding"), headers.get("content-length"))
        async for part in response.content.iter_any():
            reader.add(part)
        return reader.finish()

    async def close(self) -> None:
        """See `BlockingClient.close`."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _current_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._check_open()
            self._session, self._loop = _session(self._tls), loop
        session: aiohttp.ClientSession = self._session
        return session


def _connect_timeout(timeout: float | None) -> float:
    return CONNECT_TIMEOUT if timeout is None else min(timeout, CONNECT_TIMEOUT)


def _session(tls: Tls | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=POOL_SIZE, ssl=_context(tls) if tls else True),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


def _proxy_headers(endpoint: Endpoint) -> dict[str, str]:
    authorization = endpoint.proxy.authorization if endpoint.proxy else None
    return {} if authorization is None else {"Proxy-Authorization": authorization}


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    if tls.certificate is not None:
        context.load_cert_chain(str(tls.certificate), str(tls.key))
    return context


def _translate(error: Exception, endpoint: Endpoint, model: str | None) -> TfServingError:
    text = reason_of(error)
    # aiohttp raises ServerTimeoutError only when connecting takes too long
    if isinstance(error, (aiohttp.ServerTimeoutError, aiohttp.ClientConnectorError)):
        code = "UNAVAILABLE"
    elif isinstance(error, asyncio.TimeoutError):
        code = "DEADLINE_EXCEEDED"
    elif isinstance(error, aiohttp.ClientPayloadError):
        code = "DATA_LOSS"
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        code, text = "UNAVAILABLE", f"HTTP {error.status} {error.message}"
    elif isinstance(error, aiohttp.ClientResponseError):
        code, text = "DATA_LOSS", f"{NOT_HTTP} ({text})"
    else:
        code = "UNAVAILABLE"
    return make_error(code, text, address=endpoint.text, model=model, from_server=False, proxy=endpoint.proxy)
