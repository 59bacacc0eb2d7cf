"""The asyncio REST client, on aiohttp (the extra `aio`)."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp

from tfserving.client.async_client import AsyncClient
from tfserving.client.options import Tls
from tfserving.client.rest_transport import POOL, RestTransport, host_of, method_of, reason_of
from tfserving.client.status_errors import NO_HTTP, failure
from tfserving.errors import TfServingError


class AsyncTfRestClient(RestTransport, AsyncClient):
    """`TfRestClient` for asyncio: the same arguments, and the same calls as coroutines.

    async with AsyncTfRestClient("127.0.0.1:8501", "digits") as client:
        outputs = await client.infer({"image": images})

    Close it in the event loop that called last: aiohttp's connections end there.
    """

    _session: aiohttp.ClientSession | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    async def _send(self, path: str, body: bytes | None, timeout: float | None, model: str | None) -> bytes:
        base = self._endpoints.pick()
        limits = aiohttp.ClientTimeout(total=timeout, connect=self._connect_timeout(timeout))
        try:
            async with self._current_session().request(
                method_of(body),
                base + path,
                data=body,
                headers=self._headers(body),
                timeout=limits,
                allow_redirects=False,
                server_hostname=self._tls.server_name if self._tls else None,
            ) as reply:
                answer = await reply.read()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            self._endpoints.failed(base)
            raise _failure(error, host_of(base), model) from error
        return self._body(reply.status, answer, base, model)

    async def close(self) -> None:
        """See `BlockingClient.close`."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _current_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._check_open()
            self._session, self._loop = _session(self._tls), loop
        return self._session


def _session(tls: Tls | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=POOL, ssl=_context(tls) if tls else True),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
    )


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    if tls.certificate is not None:
        context.load_cert_chain(str(tls.certificate), str(tls.key))
    return context


def _failure(error: Exception, address: str, model: str | None) -> TfServingError:
    text = reason_of(error)
    # ServerTimeoutError is what no other timeout is told by but that of connecting
    if isinstance(error, (aiohttp.ServerTimeoutError, aiohttp.ClientConnectorError)):
        code = "UNAVAILABLE"
    elif isinstance(error, asyncio.TimeoutError):
        code = "DEADLINE_EXCEEDED"
    elif isinstance(error, aiohttp.ClientPayloadError):
        code = "DATA_LOSS"
    elif isinstance(error, aiohttp.ClientResponseError):
        code, text = "DATA_LOSS", f"{NO_HTTP} ({text})"
    else:
        code = "UNAVAILABLE"
    return failure(code, text, address=address, model=model, answered=False)
