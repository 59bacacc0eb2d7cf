"""Servers with TensorFlow Serving's APIs and Python functions as models."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from tfserving.errors import FailedPreconditionError, InvalidInputError, NotFoundError, TfServingError
from tfserving.wire import http_status, messages, predict, services
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec

PREDICT = "tensorflow/serving/predict"


def signature_def(
    inputs: dict[str, tuple[DType, tuple | None]],
    outputs: dict[str, tuple[DType, tuple | None]],
    method: str = PREDICT,
) -> Any:
    message = messages.SignatureDef(method_name=method)
    for given, infos in ((inputs, message.inputs), (outputs, message.outputs)):
        for alias, (dtype, shape) in given.items():
            infos[alias].name = f"{alias}:0"
            infos[alias].dtype = int(dtype)
            infos[alias].tensor_shape.SetInParent()
            if shape is None:
                infos[alias].tensor_shape.unknown_rank = True
            else:
                for size in shape:
                    infos[alias].tensor_shape.dim.add(size=-1 if size is None else size)
    return message


@dataclass
class FakeVersion:
    """Signatures by name, and their functions from arrays by name to arrays by name."""

    signatures: dict[str, Any]
    functions: dict[str, Callable[[dict], dict]]
    state: int = 30


def half(version: int) -> FakeVersion:
    """y = x / 2 + version on (-1,) float32, and the identity for each dtype by its label."""
    signatures = {
        "serving_default": signature_def({"x": (DType.DT_FLOAT, (None,))}, {"y": (DType.DT_FLOAT, (None,))}),
        "pair": signature_def(
            {"a": (DType.DT_FLOAT, (None, 2)), "b": (DType.DT_INT64, (None,))},
            {"sum": (DType.DT_FLOAT, (None,)), "twice": (DType.DT_INT64, (None,))},
        ),
        "scalar": signature_def({"x": (DType.DT_FLOAT, ())}, {"y": (DType.DT_FLOAT, ())}),
        "score": signature_def(
            {"inputs": (DType.DT_STRING, (None,))},
            {"scores": (DType.DT_FLOAT, (None, 1))},
            "tensorflow/serving/classify",
        ),
        "value": signature_def(
            {"inputs": (DType.DT_STRING, (None,))},
            {"outputs": (DType.DT_FLOAT, (None, 1))},
            "tensorflow/serving/regress",
        ),
    }
    functions: dict[str, Callable[[dict], dict]] = {
        "serving_default": lambda inputs: {"y": inputs["x"] / np.float32(2) + np.float32(version)},
        "pair": lambda inputs: {
            "sum": inputs["a"].sum(1, dtype=np.float32) + inputs["b"].astype(np.float32),
            "twice": inputs["b"] * 2,
        },
        "scalar": lambda inputs: {"y": inputs["x"] + np.float32(1)},
    }
    for dtype in DType:
        if dtype not in (DType.DT_INVALID, DType.DT_RESOURCE, DType.DT_VARIANT):
            signatures[dtype.label] = signature_def({"x": (dtype, None)}, {"y": (dtype, None)})
            functions[dtype.label] = lambda inputs: {"y": inputs["x"]}
    return FakeVersion(signatures, functions)


@dataclass
class FakeService:
    """The model "half" by default, and a record of the requests."""

    models: dict[str, dict[int, FakeVersion]] = field(
        default_factory=lambda: {"half": {1: half(1), 2: half(2)}}
    )
    labels: dict[tuple[str, str], int] = field(default_factory=lambda: {("half", "stable"): 1})
    # the messages of versions that could not be loaded, by model and version
    errors: dict[tuple[str, int], str] = field(default_factory=dict)
    methods: list[str] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    # each call takes the first one and fails with it
    failures: list[TfServingError] = field(default_factory=list)
    # sent instead of any response
    garbage: bytes | None = None
    configs: list[Any] = field(default_factory=list)
    before: Callable[[str], None] = lambda method: None

    def version(self, spec: ModelSpec) -> tuple[int, FakeVersion]:
        versions = self.models.get(spec.name, {})
        number = spec.version
        if spec.label is not None:
            if (spec.name, spec.label) not in self.labels:
                raise InvalidInputError(f"Unrecognized servable version label: {spec.label}")
            number = self.labels[spec.name, spec.label]
        if number is None:
            number = max(versions, default=0)
        if number not in versions or versions[number].state != 30:
            raise NotFoundError(f"Servable not found for request: {spec.name} {number}")
        return number, versions[number]

    def begin(self, method: str) -> None:
        self.methods.append(method)
        self.before(method)
        if self.failures:
            raise self.failures.pop(0)

    def call(self, spec: ModelSpec, inputs: dict, selected: tuple[str, ...]) -> tuple[ModelSpec, dict]:
        number, version = self.version(spec)
        name = spec.signature or "serving_default"
        if name not in version.signatures:
            raise FailedPreconditionError(f'Serving signature key "{name}" not found.')
        signature = version.signatures[name]
        for alias, info in signature.inputs.items():
            if alias not in inputs:
                raise InvalidInputError(f"input {alias} is missing")
            if DType.of(inputs[alias].dtype) != info.dtype:
                raise InvalidInputError(f"Expects arg[0] to be {info.dtype}")
        outputs = version.functions[name](inputs)
        chosen = {
            alias: np.asarray(array) for alias, array in outputs.items() if not selected or alias in selected
        }
        return ModelSpec(spec.name, number, None, name), chosen

    def signature_defs(self, spec: ModelSpec) -> tuple[int, Any]:
        number, version = self.version(spec)
        found = messages.SignatureDefMap()
        for name, signature in version.signatures.items():
            found.signature_def[name].CopyFrom(signature)
        return number, found

    def status(self, spec: ModelSpec) -> Any:
        if spec.name not in self.models:
            raise NotFoundError(f"Could not find any versions of model {spec.name}")
        response = messages.GetModelStatusResponse()
        for number, version in sorted(self.models[spec.name].items(), reverse=True):
            if spec.version in (None, number):
                status = response.model_version_status.add(version=number, state=version.state).status
                status.SetInParent()
                if (spec.name, number) in self.errors:
                    status.error_code, status.error_message = 9, self.errors[spec.name, number]
        return response


class FakeRpcServer(grpc.GenericRpcHandler):
    """Serves on its own port until the `with` block ends."""

    def __init__(
        self,
        service: FakeService,
        threads: int = 8,
        credentials: Any = None,
        port: int = 0,
        listen: str = "127.0.0.1",
    ) -> None:
        self.service_ = service
        self.peers: set[str] = set()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads),
            handlers=(self,),
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        at = listen if listen.startswith("unix:") else f"{listen}:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(at)
        else:
            self.port = self._server.add_secure_port(at, credentials)
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> FakeRpcServer:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(None).wait()

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method

        def handle(data: bytes, context: Any) -> bytes:
            self.peers.add(context.peer())
            self.service_.metadata.append(dict(context.invocation_metadata()))
            try:
                self.service_.begin(method.rpartition("/")[2])
                if self.service_.garbage is not None:
                    return self.service_.garbage
                return self._respond(method, data)
            except TfServingError as error:
                return context.abort(getattr(grpc.StatusCode, error.code), str(error))

        return grpc.unary_unary_rpc_method_handler(handle)

    def _respond(self, method: str, data: bytes) -> bytes:
        if method == services.PREDICT.path:
            call = predict.decode_request(data)
            return predict.encode_response(*self.service_.call(call.spec, call.read(), call.outputs))
        if method == services.GET_MODEL_METADATA.path:
            request = messages.GetModelMetadataRequest.FromString(data)
            number, found = self.service_.signature_defs(ModelSpec.from_message(request.model_spec))
            response = messages.GetModelMetadataResponse()
            response.model_spec.name = request.model_spec.name
            response.model_spec.version.value = number
            response.metadata["signature_def"].Pack(found)
            return response.SerializeToString()
        if method == services.GET_MODEL_STATUS.path:
            request = messages.GetModelStatusRequest.FromString(data)
            return self.service_.status(ModelSpec.from_message(request.model_spec)).SerializeToString()
        if method == services.RELOAD_CONFIG.path:
            self.service_.configs.append(messages.ReloadConfigRequest.FromString(data).config)
            return messages.ReloadConfigResponse().SerializeToString()
        return self._respond_to_examples(method, data)

    def _respond_to_examples(self, method: str, data: bytes) -> bytes:
        if method == services.CLASSIFY.path:
            request = messages.ClassificationRequest.FromString(data)
            response = messages.ClassificationResponse()
            _classify(request.input, response.result)
            return response.SerializeToString()
        if method == services.REGRESS.path:
            request = messages.RegressionRequest.FromString(data)
            response = messages.RegressionResponse()
            _regress(request.input, response.result)
            return response.SerializeToString()
        request = messages.MultiInferenceRequest.FromString(data)
        response = messages.MultiInferenceResponse()
        for task in request.tasks:
            result = response.results.add(model_spec=task.model_spec)
            if task.method_name.endswith("regress"):
                _regress(request.input, result.regression_result)
            else:
                _classify(request.input, result.classification_result)
        return response.SerializeToString()


def _xs(message: Any) -> list[float]:
    """Feature x of each example, or of the context if the example lacks it."""
    kind = getattr(message, message.WhichOneof("kind"))
    shared = kind.context.features.feature if hasattr(kind, "context") else {}
    xs = []
    for example in kind.examples:
        own = example.features.feature
        xs.append((own["x"] if "x" in own else shared["x"]).float_list.value[0])
    return xs


def _classify(message: Any, result: Any) -> None:
    for x in _xs(message):
        result.classifications.add().classes.add(label=f"{x:g}", score=x)


def _regress(message: Any, result: Any) -> None:
    for x in _xs(message):
        result.regressions.add(value=x / 2)


class FakeRestServer:
    """The same service over HTTP."""

    def __init__(self, service: FakeService, port: int = 0) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                self._reply(None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self._reply(json.loads(body))

            def _reply(self, body: Any) -> None:
                outer.requests.append((self.path, body))
                outer.headers.append({key.lower(): value for key, value in self.headers.items()})
                status = 200
                try:
                    service.begin(self.path)
                    data = service.garbage
                    if data is None:
                        data = json.dumps(_rest_response(service, self.path, body)).encode()
                except TfServingError as error:
                    status = http_status.status_of(error.code)
                    data = json.dumps({"error": str(error)}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                pass  # tests cause failing handshakes

            def process_request(self, request: Any, client_address: Any) -> None:
                outer._connections.append(request)
                super().process_request(request, client_address)

        self._connections: list[socket.socket] = []
        self._server = Server(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Use TLS for later connections."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> FakeRestServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)


_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata|:[a-z]+)?")


def _rest_response(service: FakeService, path: str, body: Any) -> Any:
    match = _PATH.fullmatch(path)
    if match is None:
        raise InvalidInputError(f"Malformed request: {path}")
    name, version, label, verb = match.groups()
    spec = ModelSpec(name, int(version) if version else None, label, (body or {}).get("signature_name", ""))
    if verb is None:
        return _as_json(service.status(spec))
    if verb == "/metadata":
        number, found = service.signature_defs(spec)
        return {
            "model_spec": {"name": name, "signature_name": "", "version": str(number)},
            "metadata": {"signature_def": _as_json(found)},
        }
    if verb in (":classify", ":regress"):
        context = body.get("context", {})
        xs = [{**context, **example}["x"][0] for example in body["examples"]]
        return {"results": [[[f"{x:g}", x]] for x in xs] if verb == ":classify" else [x / 2 for x in xs]}
    return _rest_predict(service, spec, body)


def _as_json(message: Any) -> Any:
    try:
        whole = {"always_print_fields_with_no_presence": True}
        return json_format.MessageToDict(message, preserving_proto_field_name=True, **whole)
    except TypeError:  # protobuf before 5.26
        whole = {"including_default_value_fields": True}
        return json_format.MessageToDict(message, preserving_proto_field_name=True, **whole)


def _rest_predict(service: FakeService, spec: ModelSpec, body: Any) -> Any:
    infos = service.version(spec)[1].signatures[spec.signature or "serving_default"].inputs
    rows = body.get("instances")
    if rows is not None:
        values = {alias: [row[alias] if isinstance(row, dict) else row for row in rows] for alias in infos}
    else:
        values = body["inputs"]
    inputs = {alias: _from_json(values[alias], DType(info.dtype)) for alias, info in infos.items()}
    _, outputs = service.call(spec, inputs, ())
    columns = {alias: _to_json(alias, array) for alias, array in outputs.items()}
    only = next(iter(columns.values())) if len(columns) == 1 else None
    if rows is None:
        return {"outputs": columns if only is None else only}
    if only is not None:
        return {"predictions": only}
    return {
        "predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    }


def _from_json(value: Any, dtype: DType) -> np.ndarray:
    def plain(item: Any) -> Any:
        if isinstance(item, list):
            return [plain(one) for one in item]
        if isinstance(item, dict):
            return base64.b64decode(item["b64"])
        return item.encode() if isinstance(item, str) else item

    natural = np.array(plain(value))
    if natural.dtype.kind == "f" and dtype.numpy.kind in "iu":
        raise InvalidInputError(f"a float is not of expected type: {dtype.label}")
    return np.array(plain(value), dtype.numpy)


def _to_json(alias: str, array: np.ndarray) -> Any:
    def plain(item: Any) -> Any:
        if isinstance(item, list):
            return [plain(one) for one in item]
        if isinstance(item, bytes):
            return {"b64": base64.b64encode(item).decode()}
        return item

    return plain(array.tolist())
