"""The gRPC API: PredictionService and ModelService, on top of `Service`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import grpc
import grpc.aio

from tfserving.errors import (
    InvalidInputError,
    ProtocolError,
    TfServingError,
    UnsupportedError,
    release_frames,
)
from tfserving.repository.config import ServerConfig, from_message
from tfserving.server import example_inference
from tfserving.server.core.servable import Inputs
from tfserving.server.futures import CompletedFuture, then
from tfserving.server.grpc.core_server import CoreServer
from tfserving.server.grpc.message_parser import SLICE_BYTES, parse, parse_slices
from tfserving.server.grpc.status_details import shorten
from tfserving.server.request_context import GRPC, Observer, RequestContext
from tfserving.server.server_options import LimitOptions
from tfserving.server.service import METADATA_FIELD, Prediction, Service
from tfserving.server.worker_pool import WorkerPools
from tfserving.wire import messages, predict, services
from tfserving.wire.limits import FillLimit
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import Signature

log = logging.getLogger(__name__)

# Takes the request's context, the serialized request and gRPC's own context.
Handler = Callable[[RequestContext, bytes, Any], Awaitable[bytes]]

# Seconds that a reload may take if the caller sets no deadline.
RELOAD_SECONDS = 300.0


class GrpcApi:
    """Handlers for serialized messages.

    Reloads, and inference that is not known to be fast, run in worker threads, and large messages are parsed
    there; everything else runs in the event loop.

    Args:
        service: serves the requests.
        limits: bound what requests can occupy.
        reload: starts to apply a new configuration within the given number of seconds, and returns a future
            that is done when its new models are available; None rejects ReloadConfig.
        tensor_content: whether responses have values in `tensor_content` rather than in repeated fields.
        observers: are notified of every request.
    """

    def __init__(
        self,
        service: Service,
        limits: LimitOptions,
        *,
        reload: Callable[[ServerConfig, float], Future[None]] | None = None,
        tensor_content: bool = False,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._service = service
        self._reload_config = reload
        self._tensor_content = tensor_content
        self._max_fields = limits.max_message_fields
        self._fill_limit = FillLimit(limits.max_filled_bytes, "--max_filled_bytes")
        # One thread: it applies one configuration after another.
        self._reloads = WorkerPools(1, lambda _: True, limits)
        handlers: dict[str, Handler] = {
            services.PREDICT.path: self._predict,
            services.CLASSIFY.path: partial(self._infer, services.CLASSIFY, example_inference.classify),
            services.REGRESS.path: partial(self._infer, services.REGRESS, example_inference.regress),
            services.MULTI_INFERENCE.path: partial(
                self._infer, services.MULTI_INFERENCE, example_inference.multi_inference
            ),
            services.GET_MODEL_METADATA.path: self._metadata,
            services.GET_MODEL_STATUS.path: self._status,
            services.RELOAD_CONFIG.path: self._reload,
        }
        self._handlers: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
        for path, handler in handlers.items():
            _, service_name, method = path.split("/")
            self._handlers.setdefault(service_name, {})[method] = grpc.unary_unary_rpc_method_handler(
                _wrap(method, handler, observers)
            )

    def add_to(self, server: CoreServer | grpc.aio.Server) -> None:
        """Adds both services to a server, as generated code adds a servicer."""
        for name, handlers in self._handlers.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
            server.add_registered_method_handlers(name, handlers)

    async def _predict(self, context: RequestContext, data: bytes, _: Any) -> bytes:
        name = predict.peek_model(data)
        return await self._service.run_where_fast(name, len(data), self._run_predict, context, data)

    def _run_predict(self, context: RequestContext, data: bytes) -> Future[bytes]:
        try:
            request = predict.decode_request(data, self._parse_predict)
        except TfServingError as error:
            context.requested_spec = ModelSpec(predict.peek_model(data))
            if isinstance(error, ProtocolError):
                raise InvalidInputError(str(error)) from error
            raise

        def read(signature: Signature) -> Inputs:
            try:
                return request.read(signature, self._fill_limit)
            except ProtocolError as error:
                raise InvalidInputError(str(error)) from error

        return then(self._service.predict(context, request.spec, read, request.outputs), self._encode)

    def _parse_predict(self, kind: Any, data: bytes) -> Any:
        return parse_slices(kind, data, self._max_fields)

    def _encode(self, prediction: Prediction) -> bytes:
        return predict.encode_response(
            prediction.spec, prediction.outputs, tensor_content=self._tensor_content
        )

    async def _infer(
        self,
        method: services.Method,
        infer: Callable[[RequestContext, Service, Any], Future[Any]],
        context: RequestContext,
        data: bytes,
        _: Any,
    ) -> bytes:
        name = predict.peek_model(_first_task(data) if method is services.MULTI_INFERENCE else data)

        def run() -> Future[bytes]:
            request = parse(method.request, data, self._max_fields)
            return then(infer(context, self._service, request), _serialize)

        return await self._service.run_in_worker(name, len(data), run)

    async def _metadata(self, context: RequestContext, data: bytes, _: Any) -> bytes:
        request = await self._parse(messages.GetModelMetadataRequest, data)
        if not request.metadata_field:
            raise InvalidInputError(f"the request has no metadata_field, expected {METADATA_FIELD!r}")
        for name in request.metadata_field:
            if name != METADATA_FIELD:
                raise InvalidInputError(
                    f"metadata_field {name!r} does not exist, expected {METADATA_FIELD!r}"
                )
        spec, signatures = self._service.metadata(context, ModelSpec.from_message(request.model_spec))
        response = messages.GetModelMetadataResponse(model_spec=spec.to_message())
        response.metadata[METADATA_FIELD].Pack(signatures)
        return bytes(response.SerializeToString())

    async def _status(self, context: RequestContext, data: bytes, _: Any) -> bytes:
        request = await self._parse(messages.GetModelStatusRequest, data)
        response = self._service.status(context, ModelSpec.from_message(request.model_spec))
        return bytes(response.SerializeToString())

    async def _reload(self, _: RequestContext, data: bytes, grpc_context: Any) -> bytes:
        remaining = grpc_context.time_remaining()
        timeout = RELOAD_SECONDS if remaining is None else remaining
        available = await self._reloads.run("reload", len(data), self._start_reload, data, timeout)
        # If the caller goes away, this is cancelled, and the future with it.
        await asyncio.wrap_future(available)
        return bytes(messages.ReloadConfigResponse(status={}).SerializeToString())

    def _start_reload(self, data: bytes, timeout: float) -> Future[Future[None]]:
        request = parse(messages.ReloadConfigRequest, data, self._max_fields)
        if self._reload_config is None:
            raise UnsupportedError("this server does not support ReloadConfig")
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidInputError("the request has no model_config_list: send the whole list of models")
        return CompletedFuture(self._reload_config(from_message(request.config), timeout))

    async def _parse(self, kind: Any, data: bytes) -> Any:
        if len(data) <= SLICE_BYTES:
            return parse(kind, data, self._max_fields)
        run = partial(_parse_in_worker, kind, data, self._max_fields)
        return await self._service.run_in_worker("", len(data), run)


def _parse_in_worker(kind: Any, data: bytes, max_fields: int) -> Future[Any]:
    return CompletedFuture(parse(kind, data, max_fields))


def _first_task(data: bytes) -> bytes:
    """The first task of a serialized `MultiInferenceRequest`, b"" if it does not begin with a short one."""
    # the tag of `tasks`, and a length of one or two bytes
    if data[:1] != b"\x0a":
        return b""
    if data[1:2] < b"\x80":
        return data[2 : 2 + int.from_bytes(data[1:2], "little")]
    if data[2:3] < b"\x80":
        return data[3 : 3 + (data[1] & 127) + 128 * int.from_bytes(data[2:3], "little")]
    return b""


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _wrap(
    method: str, handler: Handler, observers: Sequence[Observer]
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """A handler for gRPC: creates the request's context, and turns errors into gRPC statuses."""

    async def handle(data: bytes, grpc_context: Any) -> bytes:
        try:
            # Read before the request runs: after its end, peer() crashes the process.
            peer = grpc_context.peer() if observers else ""
            with RequestContext(GRPC, method, peer=peer, observers=observers) as context:
                context.request_bytes = len(data)
                response = await handler(context, data, grpc_context)
                context.response_bytes = len(response)
                return response
        except TfServingError as error:
            code, text = error.code, str(error)
            release_frames(error)
        except Exception as error:
            log.exception("%s failed", method)
            code, text = "INTERNAL", f"{type(error).__name__}: {error}"
            release_frames(error)
        except asyncio.CancelledError as error:
            release_frames(error)
            raise
        del data
        # Outside the except blocks: gRPC would log the error above as the cause of the one it raises.
        await grpc_context.abort(getattr(grpc.StatusCode, code, grpc.StatusCode.UNKNOWN), shorten(text))
        raise AssertionError("abort() returned")

    return handle
