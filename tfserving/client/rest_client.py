"""The blocking REST client."""

from __future__ import annotations

import http.client
import os
import threading
import weakref
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from tfserving.client.blocking_client import BlockingClient
from tfserving.client.options import Tls
from tfserving.client.rest_transport import POOL, RestTransport, host_of, method_of, reason_of
from tfserving.client.status_errors import NO_HTTP, failure
from tfserving.errors import TfServingError


class TfRestClient(RestTransport, BlockingClient):
    """A client over HTTP, for where gRPC cannot pass; slower, above all with large tensors.

        with TfRestClient("127.0.0.1:8501", "digits") as client:
            outputs = client.infer({"image": images})

    The same calls, results and errors as `TfRpcClient`, but for what the REST API lacks: `multi_inference`,
    `reload_config`, complex numbers, and output bytes that are no UTF-8 unless the output's name ends in
    "_bytes" (the server replaces them).

    Args:
        address: "host:port", or a URL; several as a comma list or a sequence: calls go to them in turn, past
            those that do not answer. The port may be left out (8501).
        model_name: the model of calls that name none.
        timeout: seconds for calls that give none; None for no limit.
        retry: when to ask again.
        tls: for https; certificates as with gRPC.
        metadata: headers to send with each call, or a function that gives them.
        row_format: send `instances` and not `inputs`; see `RestCodec`.

    Raises:
        InvalidInputError: an address or option that cannot be right.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tls = self._tls
        self._verify = os.fspath(tls.ca) if tls and tls.ca is not None else None
        self._cert = (
            (os.fspath(tls.certificate), os.fspath(tls.key))
            if tls and tls.certificate is not None and tls.key is not None
            else None
        )
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        _alive.add(self)

    def _send(self, path: str, body: bytes | None, timeout: float | None, model: str | None) -> bytes:
        base = self._endpoints.pick()
        try:
            reply = self._current_session().request(
                method_of(body),
                base + path,
                data=body,
                headers=self._headers(body),
                timeout=(self._connect_timeout(timeout), timeout),
                allow_redirects=False,
                # with each request: REQUESTS_CA_BUNDLE would win over the session's
                verify=self._verify,
                cert=self._cert,
            )
        except requests.RequestException as error:
            self._endpoints.failed(base)
            raise _failure(error, host_of(base), model) from error
        return self._body(reply.status_code, reply.content, base, model)

    def close(self) -> None:
        """See `BlockingClient.close`."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _current_session(self) -> requests.Session:
        session = self._session
        if session is None:
            with self._lock:
                self._check_open()
                if self._session is None:
                    self._session = _session(self._tls)
                session = self._session
        return session

    def after_fork(self) -> None:
        """In the child: its parent goes on to use the connections."""
        self._session = None
        self._lock = threading.Lock()


class _Adapter(HTTPAdapter):
    """Checks the server's certificate for a name that is not the URL's."""

    def __init__(self, server_name: str | None) -> None:
        self._server_name = server_name
        super().__init__(pool_connections=POOL, pool_maxsize=POOL)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        if self._server_name is not None:
            kwargs.update(server_hostname=self._server_name, assert_hostname=self._server_name)
        super().init_poolmanager(*args, **kwargs)


def _session(tls: Tls | None) -> requests.Session:
    session = requests.Session()
    session.mount("http://", _Adapter(None))
    session.mount("https://", _Adapter(tls.server_name if tls else None))
    # threads share the session, and cookies would be all that they change in it
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def _failure(error: requests.RequestException, address: str, model: str | None) -> TfServingError:
    text = reason_of(error)
    if isinstance(error, requests.Timeout) and not isinstance(error, requests.ConnectionError):
        code = "DEADLINE_EXCEEDED"
    elif isinstance(
        error, (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
    ):
        code = "DATA_LOSS"
    elif _is_no_http(error):
        code, text = "DATA_LOSS", f"{NO_HTTP} ({text})"
    else:
        code = "UNAVAILABLE"
    return failure(code, text, address=address, model=model, answered=False)


def _is_no_http(error: requests.RequestException) -> bool:
    reason = error.args[0] if error.args else None
    inner = reason.args[-1] if isinstance(reason, urllib3.exceptions.ProtocolError) else None
    return isinstance(inner, http.client.HTTPException) and not isinstance(
        inner, http.client.RemoteDisconnected
    )


_alive: weakref.WeakSet[TfRestClient] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_alive):
        client.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
