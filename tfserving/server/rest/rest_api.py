"""The REST API of TensorFlow Serving: HTTP and JSON over the same service calls as gRPC."""

from __future__ import annotations

import asyncio
import logging
import re
import zlib
from dataclasses import dataclass, replace

from aiohttp import web

from tfserving.errors import DeadlineError, InvalidInputError, TfServingError
from tfserving.server import example_inference
from tfserving.server.observability import call_context
from tfserving.server.rest import predict_request, responses, rest_paths
from tfserving.server.rest.example_json import parse_examples
from tfserving.server.rest.json_body import inflate
from tfserving.server.rest.rest_paths import Call, Target
from tfserving.server.service import Service
from tfserving.wire import messages
from tfserving.wire.http_status import status_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestOptions:
    """How the REST API behaves.

    Attributes:
        timeout_in_ms: milliseconds for answering a request once it is read; 0 or less for no limit.
        cors: whether any web page may call (--rest_api_enable_cors_support).
        max_inflated_bytes: most bytes that a compressed body may become.
        min_compressed_bytes: answers shorter than this are not compressed: it would cost more than it saves.
    """

    timeout_in_ms: int = 30_000
    cors: bool = False
    max_inflated_bytes: int = 1 << 28
    min_compressed_bytes: int = 1 << 14


class RestApi:
    """Answers HTTP requests; whatever is asked, a refusal is a JSON object with the key "error"."""

    def __init__(self, service: Service, options: RestOptions) -> None:
        self._service = service
        self._options = options
        self._timeout = options.timeout_in_ms / 1e3 if options.timeout_in_ms > 0 else None

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answers any request."""
        try:
            response = await self._answer(request)
        except TfServingError as error:
            call_context.current().failed(error)
            response = json_response(responses.error(str(error)), status_of(error.code))
        except Exception as error:
            call_context.current().failed(error)
            log.exception("answering %s %s", request.method, request.path)
            response = json_response(responses.error(f"{type(error).__name__}: {error}"), 500)
        if self._options.cors:
            response.headers.update(_CORS)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.method == "OPTIONS" and self._options.cors:
            return json_response(b"")
        target = rest_paths.parse("GET" if request.method == "HEAD" else request.method, request.raw_path)
        observed = call_context.current()
        observed.method, observed.asked = target.call.method, target.spec
        if target.call is Call.STATUS:
            return json_response(responses.status(self._service.status(target.spec)))
        if target.call is Call.METADATA:
            return json_response(responses.metadata(*self._service.metadata(target.spec)))
        # read to its end before a worker is taken: a slow client must not hold one
        body = await _body(request)
        observed.request_bytes = sum(map(len, body))
        return await self._in_worker(request, target, body)

    async def _in_worker(self, request: web.BaseRequest, target: Target, chunks: list[bytes]) -> web.Response:
        compress = _accepts_gzip(request.headers.get("Accept-Encoding", ""))
        encoding = request.headers.get("Content-Encoding", "")

        def work() -> tuple[bytes, bool]:
            body = inflate(b"".join(chunks), encoding, self._options.max_inflated_bytes)
            answer = self._called(target, body)
            if not compress or len(answer) < self._options.min_compressed_bytes:
                return answer, False
            return _gzipped(answer), True

        call = self._service.in_worker(target.spec.name, work)
        try:
            answer, compressed = await asyncio.wait_for(call, self._timeout)
        except DeadlineError:
            raise
        except asyncio.TimeoutError as error:
            raise DeadlineError(
                f"no answer within {self._options.timeout_in_ms} ms (--rest_api_timeout_in_ms)"
            ) from error
        response = json_response(answer)
        if compressed:
            response.headers.update(_GZIP)
        return response

    def _called(self, target: Target, body: bytes) -> bytes:
        """Blocks for as long as the model takes."""
        if target.call is Call.PREDICT:
            call = predict_request.parse_predict(body)
            answer = self._service.predict(replace(target.spec, signature=call.signature), call.read)
            return responses.predictions(answer.outputs, call.format)
        signature, examples = parse_examples(body)
        spec = replace(target.spec, signature=signature).to_message()
        if target.call is Call.CLASSIFY:
            request = messages.ClassificationRequest(model_spec=spec, input=examples)
            return responses.classifications(example_inference.classify(self._service, request).result)
        request = messages.RegressionRequest(model_spec=spec, input=examples)
        return responses.regressions(example_inference.regress(self._service, request).result)


_GZIP = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
# AddCORSHeaders in http_rest_api_util.cc
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
_ACCEPTS_GZIP = re.compile(
    r"(?:^|,)\s*(?:gzip|\*)\s*(?:$|,|;\s*q\s*=\s*(?!0(?:\.0*)?\s*(?:,|$)))", re.IGNORECASE
)


def json_response(body: bytes, status: int = 200) -> web.Response:
    """A response that does not tell which software gives it, as aiohttp otherwise would."""
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"Server": "tfserving"}
    )


async def _body(request: web.BaseRequest) -> list[bytes]:
    """The body in pieces: joining large ones would keep the event loop."""

    async def read_piece() -> bytes:
        # readany() joins what has come, readchunk() gives it as it came; but chunks of HTTP may be tiny
        if request.headers.get("Transfer-Encoding"):
            return await request.content.readany()
        return (await request.content.readchunk())[0]

    try:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # that was not yet the response
            request.writer.output_size = 0
        chunks = []
        while not request.content.at_eof():
            chunks.append(await read_piece())
        return chunks
    except (web.RequestPayloadError, ConnectionError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and request.transport is not None:
            raise
        # aiohttp's word for a connection that was closed before the body was waited for is a RuntimeError
        raise InvalidInputError(f"the body ended before its end: {error}") from error


def _accepts_gzip(header: str) -> bool:
    return _ACCEPTS_GZIP.search(header) is not None


def _gzipped(data: bytes) -> bytes:
    # the quickest level: digits of floats hardly get smaller with a better one
    compressor = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16)
    return compressor.compress(data) + compressor.flush()
