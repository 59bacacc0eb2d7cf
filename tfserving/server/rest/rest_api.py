"""The REST API of TensorFlow Serving: HTTP and JSON, on top of the same `Service` as gRPC."""

from __future__ import annotations

import asyncio
import logging
import re
import zlib
from collections.abc import Awaitable
from concurrent.futures import Future
from dataclasses import replace

from tfserving.errors import DeadlineError, InvalidInputError, TfServingError, release_frames
from tfserving.server import example_inference
from tfserving.server.futures import then
from tfserving.server.http.http_messages import HttpRequest, HttpResponse, RequestBody
from tfserving.server.request_context import RequestContext
from tfserving.server.rest import predict_request, responses, rest_paths
from tfserving.server.rest.arriving_bodies import ArrivingBodies, ArrivingBody
from tfserving.server.rest.example_json import parse_examples
from tfserving.server.rest.json_body import inflate
from tfserving.server.rest.large_bodies import Turn, Turns
from tfserving.server.rest.rest_paths import RestCall, RestMethod
from tfserving.server.server_options import LimitOptions, RestOptions
from tfserving.server.service import Prediction, Service
from tfserving.wire import messages
from tfserving.wire.dtypes import Arrays
from tfserving.wire.http_status import status_of
from tfserving.wire.signatures import Signature

log = logging.getLogger(__name__)


# Compressing a shorter response costs more time than it saves.
MIN_COMPRESSED_BYTES = 1 << 14


class RestApi:
    """Handles HTTP requests. Every error is a JSON object with the key "error"."""

    def __init__(self, service: Service, options: RestOptions, limits: LimitOptions) -> None:
        self._service = service
        self._limits = limits
        self._bodies = ArrivingBodies(service, self._limits)
        self._turns = Turns()
        self._options = options
        self._timeout = options.timeout_in_ms / 1e3 if options.timeout_in_ms > 0 else None

    async def handle(self, context: RequestContext, request: HttpRequest) -> HttpResponse:
        """Handles any request."""
        try:
            response = await self._respond(context, request)
        except TfServingError as error:
            context.record_failure(error)
            response = HttpResponse(responses.encode_error(str(error)), status_of(error.code))
            release_frames(error)
        except Exception as error:
            context.record_failure(error)
            log.exception("%s %s failed", request.method, request.target)
            response = HttpResponse(responses.encode_error(f"{type(error).__name__}: {error}"), 500)
            release_frames(error)
        except asyncio.CancelledError as error:
            release_frames(error)
            raise
        if self._options.cors:
            response.headers.update(_CORS)
        return response

    async def _respond(self, context: RequestContext, request: HttpRequest) -> HttpResponse:
        if request.method == "OPTIONS" and _WEB_ORIGIN.search(request.header(b"origin")):
            rest_paths.parse_path(request.target)
            return HttpResponse(b"")
        call = rest_paths.parse_request_line(request.method, request.target)
        context.method, context.requested_spec = rest_paths.GRPC_NAMES[call.method], call.spec
        if call.method is RestMethod.STATUS:
            return HttpResponse(responses.encode_status(self._service.status(context, call.spec)))
        if call.method is RestMethod.METADATA:
            return HttpResponse(responses.encode_metadata(*self._service.metadata(context, call.spec)))
        # Read completely before a worker thread is taken: a slow client must not hold one.
        with self._bodies.receive(request.body, call.spec) as arriving:
            body = await _read_body(request.body, arriving)
            context.request_bytes = arriving.size
            return await self._infer(context, request, call, body, arriving)

    async def _infer(
        self,
        context: RequestContext,
        request: HttpRequest,
        call: RestCall,
        chunks: list[bytes],
        arriving: ArrivingBody,
    ) -> HttpResponse:
        accepts_gzip = _accepts_gzip(request.header(b"accept-encoding"))
        encoding = request.header(b"content-encoding")

        turn = self._turns.for_body(call.spec.name, context.request_bytes, is_gzip="gzip" in encoding)

        def run(context: RequestContext) -> Future[bytes]:
            turn.begin()
            try:
                body = b"".join(chunks)
                if not context.in_event_loop:  # else it may run a second time, in a worker thread
                    chunks.clear()
                body = inflate(body, encoding, self._limits.max_body_bytes)
                future = self._run(context, call, body, turn)
            finally:
                turn.end()
            return then(future, _compress) if accepts_gzip else future

        may_run_here = call.method is RestMethod.PREDICT and not encoding
        start_run = self._service.run_where_fast if may_run_here else self._service.run_in_worker

        def start() -> Awaitable[bytes]:
            arriving.end()  # the model's workers count it from now on
            return start_run(call.spec.name, context.request_bytes, run, context)

        body = await self._wait(turn.run(start))
        response = HttpResponse(body)
        if body.startswith(_GZIP_MAGIC):
            response.headers.update(_GZIP)
        return response

    async def _wait(self, running: Awaitable[bytes]) -> bytes:
        """The result, within the time for requests.

        Raises:
            DeadlineError: it takes longer.
        """
        future = asyncio.ensure_future(running)
        if not future.done():
            # not wait_for(), which needs a task from Python 3.12 on
            try:
                await asyncio.wait((future,), timeout=self._timeout)
            except asyncio.CancelledError:
                future.cancel()
                raise
            if not future.done():
                future.cancel()
                raise DeadlineError(
                    f"no response within {self._options.timeout_in_ms} ms (--rest_api_timeout_in_ms)"
                )
        return future.result()

    def _run(self, context: RequestContext, call: RestCall, body: bytes, turn: Turn) -> Future[bytes]:
        """A future for the JSON text of the response."""
        max_values = self._limits.max_json_values
        if call.method is RestMethod.PREDICT:
            parsed = predict_request.parse_predict(body, max_values)
            spec = replace(call.spec, signature=parsed.signature) if parsed.signature else call.spec

            def encode(prediction: Prediction) -> bytes:
                return responses.encode_predictions(prediction.outputs, parsed.format)

            def read(signature: Signature) -> Arrays:
                inputs = parsed.read(signature)
                turn.end()  # before the model runs
                return inputs

            return then(self._service.predict(context, spec, read), encode)
        signature, examples = parse_examples(body, max_values)
        turn.end()
        model_spec = replace(call.spec, signature=signature).to_message()
        if call.method is RestMethod.CLASSIFY:
            request = messages.ClassificationRequest(model_spec=model_spec, input=examples)
            classified = example_inference.classify(context, self._service, request)
            return then(classified, lambda response: responses.encode_classifications(response.result))
        request = messages.RegressionRequest(model_spec=model_spec, input=examples)
        regressed = example_inference.regress(context, self._service, request)
        return then(regressed, lambda response: responses.encode_regressions(response.result))


_GZIP_MAGIC = b"\x1f\x8b"  # JSON never begins with it
_GZIP = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
# AddCORSHeaders in http_rest_api_util.cc
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
# The origin of a preflight request (RestApiRequestDispatcher in http_server.cc).
_WEB_ORIGIN = re.compile("https?://")
_ZERO = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*", re.IGNORECASE)


def _accepts_gzip(accepted: str) -> bool:
    """Whether the value of Accept-Encoding allows gzip; "*" counts if it does not name gzip."""
    if not accepted:
        return False
    weights: dict[str, str] = {}
    for coding in accepted.split(","):
        name, _, weight = coding.partition(";")
        weights[name.strip().lower()] = weight
    return not _ZERO.fullmatch(weights.get("gzip", weights.get("*", "q=0")))


async def _read_body(body: RequestBody, arriving: ArrivingBody) -> list[bytes]:
    """Reads the body in pieces: joining large ones would block the event loop.

    Raises:
        InvalidInputError: the body is incomplete.
        TfServingError: see ArrivingBody.add, and its timeout.
    """
    pieces: list[bytes] = []
    is_last = False
    while not is_last:
        if not body.is_complete:
            try:
                await body.wait()
            except ConnectionError as error:
                raise InvalidInputError(f"the body is incomplete: {error}") from error
        is_last = body.is_complete
        pieces.append(body.take())
        arriving.add(len(pieces[-1]))
    return pieces


def _compress(text: bytes) -> bytes:
    if len(text) < MIN_COMPRESSED_BYTES:
        return text
    # level 1: digits of floats hardly get smaller with a higher one
    compressor = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16)
    return compressor.compress(text) + compressor.flush()
