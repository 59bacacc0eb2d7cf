"""The blocking REST client."""

from __future__ import annotations

import http.client
import os
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from tfserving.client.blocking_client import BlockingClient
from tfserving.client.flow import Request
from tfserving.client.options import CONNECT_TIMEOUT, Tls
from tfserving.client.proxies import basic_authorization
from tfserving.client.rest_connections import POOL_CLASSES, call_deadline, is_deadline_over
from tfserving.client.rest_endpoints import Endpoint
from tfserving.client.rest_transport import POOL_SIZE, READ_SIZE, RestTransport, reason_of
from tfserving.client.status_errors import NOT_HTTP, make_error
from tfserving.errors import TfServingError


class TfRestClient(RestTransport, BlockingClient):
    """A client for the REST API, where gRPC is not available; slower, above all with large tensors.

        with TfRestClient("127.0.0.1:8501", "digits") as client:
            outputs = client.infer({"image": images})

    The same calls, results and errors as `TfRpcClient`, except what the REST API lacks: `multi_inference`,
    `reload_config`, and complex and quantized numbers. In a forked child the client opens new connections.

    Args:
        address: "host:port" or a URL; or several, as a comma-separated list or a sequence: calls go to them
            in turn, and skip servers that do not respond. The default port is 8501. Errors and attributes do
            not show credentials in a URL.
        model_name: the default model of the calls.
        timeout: default timeout of the calls in seconds; None for no limit.
        retry: when to retry.
        tls: for https; certificates as with gRPC. Addresses that begin with http:// are rejected.
        metadata: headers to send with each call, or a function that returns them.
        proxy: URL of an HTTP proxy, None for direct connections; by default as in the environment
            (http_proxy, https_proxy, all_proxy, no_proxy), except for loopback addresses.
        row_format: send `instances` instead of `inputs`; see `RestCodec`.
        max_response_bytes: larger responses raise ExhaustedError, before and after decompression, as do
            responses with more arrays and objects than a sixteenth of it; None for no limit.
        split: weights of version labels, such as {"stable": 95, "canary": 5}: calls of `model_name` without
            a version or label go to one of these labels, by its share; see `split_key` of the calls.

    Raises:
        InvalidInputError: an address or option is not valid.
    """

    def _send(self, request: Request[Any]) -> bytes:
        endpoint = self._endpoints.pick()
        headers = self._headers(request.body, endpoint)
        proxy = endpoint.proxy
        with call_deadline(request.timeout):
            try:
                response = self._current_session().request(
                    "GET" if request.body is None else "POST",
                    endpoint.url + request.path,
                    data=request.body,
                    headers=headers,
                    timeout=(CONNECT_TIMEOUT, None),
                    allow_redirects=False,
                    proxies={} if proxy is None else {"all": proxy.url_with_credentials},
                    stream=True,
                )
                with response:
                    body = self._read_body(response)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                self._endpoints.mark_down(endpoint)
                raise _translate(error, endpoint, request.model) from error
        return self._check_response(response.status_code, body, endpoint, request.model)

    def _read_body(self, response: requests.Response) -> bytes:
        headers = response.headers
        reader = self._make_body_reader(headers.get("content-encoding"), headers.get("content-length"))
        # not stream(): there a line of the chunked encoding may have any length
        while part := response.raw.read(READ_SIZE, decode_content=False):
            reader.add(part)
        return reader.finish()

    def close(self) -> None:
        """See `BlockingClient.close`."""
        with self._lock:
            self._is_closed = True
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _current_session(self) -> requests.Session:
        session: requests.Session | None = self._session
        if session is None:
            with self._lock:
                self._check_open()
                if self._session is None:
                    self._session = _session(self._tls)
                session = self._session
        return session


class _Adapter(HTTPAdapter):
    """Checks the server's certificate for `Tls.server_name` instead of the URL's host."""

    def __init__(self, server_name: str | None) -> None:
        self._server_name = server_name
        super().__init__(pool_connections=POOL_SIZE, pool_maxsize=POOL_SIZE)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **(kwargs | self._host_options()))
        self.poolmanager.pool_classes_by_scheme = POOL_CLASSES

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **(kwargs | self._host_options()))
        manager.pool_classes_by_scheme = POOL_CLASSES
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        # requests cannot encode all characters of a password
        credentials, at, _ = urlsplit(proxy).netloc.rpartition("@")
        return {"Proxy-Authorization": basic_authorization(credentials)} if at else {}

    def _host_options(self) -> dict[str, Any]:
        name = self._server_name
        return {} if name is None else {"server_hostname": name, "assert_hostname": name}


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # requests would read and decompress the whole body of a redirect, although none is followed
        return None


def _session(tls: Tls | None) -> requests.Session:
    tls = tls or Tls()
    session = _Session()
    # Endpoints have their proxies. requests would also replace the authorization header by that in ~/.netrc.
    session.trust_env = False
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    session.verify = os.fspath(tls.ca) if tls.ca is not None else bundle or True
    if tls.certificate is not None and tls.key is not None:
        session.cert = (os.fspath(tls.certificate), os.fspath(tls.key))
    session.mount("http://", _Adapter(None))
    session.mount("https://", _Adapter(tls.server_name))
    # threads share the session; cookies would be its only state that calls change
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def _translate(
    error: requests.RequestException | urllib3.exceptions.HTTPError, endpoint: Endpoint, model: str | None
) -> TfServingError:
    text = reason_of(error)
    if is_deadline_over() and not isinstance(error, requests.ConnectTimeout):
        code = "DEADLINE_EXCEEDED"
    elif isinstance(error, urllib3.exceptions.HTTPError):  # while reading the body
        code = "DATA_LOSS"
    elif _is_not_http(error):
        code, text = "DATA_LOSS", f"{NOT_HTTP} ({text})"
    else:
        code = "UNAVAILABLE"
    return make_error(code, text, address=endpoint.text, model=model, from_server=False, proxy=endpoint.proxy)


def _is_not_http(error: requests.RequestException) -> bool:
    reason = error.args[0] if error.args else None
    inner = reason.args[-1] if isinstance(reason, urllib3.exceptions.ProtocolError) else None
    return isinstance(inner, http.client.HTTPException) and not isinstance(
        inner, http.client.RemoteDisconnected
    )
