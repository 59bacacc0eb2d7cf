"""The gRPC API: PredictionService and ModelService over the service."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from tfserving.errors import InvalidInputError, ProtocolError, TfServingError, UnsupportedError
from tfserving.repository.config import ServerConfig, from_message
from tfserving.server import example_inference
from tfserving.server.observability import call_context
from tfserving.server.observability.call_context import Observer
from tfserving.server.service import METADATA_FIELD, Service
from tfserving.server.worker_pool import run_alone
from tfserving.wire import messages, predict, services
from tfserving.wire.model_spec import ModelSpec

log = logging.getLogger(__name__)

# Takes the serialized request and gRPC's context.
Handler = Callable[[bytes, Any], Awaitable[bytes]]

# How long a reload may take when the caller sets no deadline, in seconds.
RELOAD_SECONDS = 300.0

# Bytes that the text of an error may have as gRPC sends it: clients take no more than 8 kB of metadata for
# sure, and tell RESOURCE_EXHAUSTED instead. Callers' own names are in such texts.
_MAX_DETAILS = 6000


class GrpcApi:
    """Handlers that take and give serialized messages, for a `grpc.aio.Server`.

    Inference runs in workers; what only looks things up runs in the event loop.
    """

    def __init__(
        self,
        service: Service,
        *,
        reload: Callable[[ServerConfig, float], None] | None = None,
        tensor_content: bool = False,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._service = service
        self._reload_config = reload
        self._tensor_content = tensor_content
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
                _guarded(_observed(path, handler, observers))
            )

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds both services to a server, as generated code adds a servicer."""
        for name, handlers in self._handlers.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
            server.add_registered_method_handlers(name, handlers)

    async def _predict(self, data: bytes, _: Any) -> bytes:
        return await self._service.in_worker(predict.peek_model(data), self._predict_now, data)

    def _predict_now(self, data: bytes) -> bytes:
        try:
            call = predict.decode_request(data)
        except ProtocolError as error:
            call_context.current().asked = ModelSpec(predict.peek_model(data))
            raise InvalidInputError(str(error)) from error
        answer = self._service.predict(call.spec, lambda _: call.inputs, call.outputs)
        return predict.encode_response(answer.spec, answer.outputs, tensor_content=self._tensor_content)

    async def _infer(
        self, method: services.Method, answer: Callable[[Service, Any], Any], data: bytes, _: Any
    ) -> bytes:
        request = _parsed(method.request, data)
        tasks = request.tasks if method is services.MULTI_INFERENCE else (request,)
        name = tasks[0].model_spec.name if tasks else ""
        response = await self._service.in_worker(name, answer, self._service, request)
        return bytes(response.SerializeToString())

    async def _metadata(self, data: bytes, _: Any) -> bytes:
        request = _parsed(messages.GetModelMetadataRequest, data)
        if not request.metadata_field:
            raise InvalidInputError(f"the request names no metadata_field: ask for {METADATA_FIELD!r}")
        for name in request.metadata_field:
            if name != METADATA_FIELD:
                raise InvalidInputError(f"there is no metadata field {name!r}: ask for {METADATA_FIELD!r}")
        spec, signatures = self._service.metadata(ModelSpec.from_message(request.model_spec))
        response = messages.GetModelMetadataResponse(model_spec=spec.to_message())
        response.metadata[METADATA_FIELD].Pack(signatures)
        return bytes(response.SerializeToString())

    async def _status(self, data: bytes, _: Any) -> bytes:
        request = _parsed(messages.GetModelStatusRequest, data)
        answer = self._service.status(ModelSpec.from_message(request.model_spec))
        return bytes(answer.SerializeToString())

    async def _reload(self, data: bytes, context: Any) -> bytes:
        request = _parsed(messages.ReloadConfigRequest, data)
        if self._reload_config is None:
            raise UnsupportedError("this server's configuration cannot be changed by a call")
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidInputError("the request has no model_config_list: send the whole list of models")
        timeout = context.time_remaining() or RELOAD_SECONDS
        await run_alone(self._reload_config, from_message(request.config), timeout)
        return bytes(messages.ReloadConfigResponse(status={}).SerializeToString())


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidInputError(f"the request is no {kind.DESCRIPTOR.full_name}: {error}") from error


def _observed(path: str, handler: Handler, observers: Sequence[Observer]) -> Handler:
    """The handler with its calls told to observers; itself where there are none."""
    if not observers:
        return handler
    method = path.rpartition("/")[2]

    async def handle(data: bytes, context: Any) -> bytes:
        # asked for now: once the call is over, context.peer() takes the process down
        with call_context.Call(observers, call_context.GRPC, method, peer=context.peer()) as call:
            call.request_bytes = len(data)
            answer = await handler(data, context)
            call.response_bytes = len(answer)
            return answer

    return handle


def _guarded(handler: Handler) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """The handler with errors turned into gRPC statuses."""

    async def handle(data: bytes, context: Any) -> bytes:
        try:
            return await handler(data, context)
        except TfServingError as error:
            code, text = error.code, str(error)
        except Exception as error:
            log.exception("answering a gRPC call")
            code, text = "INTERNAL", f"{type(error).__name__}: {error}"
        # outside of the except blocks: gRPC would log the error above as the cause of its own exception
        await context.abort(getattr(grpc.StatusCode, code, grpc.StatusCode.UNKNOWN), _short(text))
        raise AssertionError("context.abort returned")

    return handle


def _short(text: str) -> str:
    """The text, cut where it is too long; what is no printable ASCII is sent as three bytes for each."""
    size = 0
    for index, character in enumerate(text):
        size += 1 if " " <= character <= "~" else 3 * len(character.encode("utf-8", "replace"))
        if size > _MAX_DETAILS:
            return f"{text[:index]}..."
    return text
