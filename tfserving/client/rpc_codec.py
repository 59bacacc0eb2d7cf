"""Calls as gRPC messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfserving.client.features import Features, input_message
from tfserving.client.flow import Request
from tfserving.client.inputs import arrays_for, encoding_error, order_outputs
from tfserving.client.signature_cache import PreparedPredict
from tfserving.client.types import Classification, Inference, VersionStatus
from tfserving.errors import ProtocolError, error_class_for
from tfserving.wire import messages, predict, services
from tfserving.wire.dtypes import Array, Arrays
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.services import Method
from tfserving.wire.signatures import Signature, signatures_of

_SIGNATURE_DEF = "signature_def"


class RpcCodec:
    """Writes requests and reads responses: one method for each call, as in `RestCodec`."""

    def prepare_predict(
        self, spec: ModelSpec, signature: Signature, outputs: Sequence[str]
    ) -> PreparedPredict:
        """A function that makes the requests of many calls from their inputs.

        It raises InvalidInputError for inputs that do not fit the signature (see `arrays_for`), and over REST
        UnsupportedError for inputs that JSON cannot represent.
        """
        writer = predict.RequestWriter(spec, outputs)
        path, input_count = services.PREDICT.path, len(signature.inputs)
        expected = tuple(outputs or signature.outputs)

        def decode(data: bytes) -> Arrays:
            outputs = predict.decode_response(data)[1]
            return outputs if tuple(outputs) == expected else order_outputs(outputs, expected)

        def request_for(inputs: Any) -> Request[Arrays]:
            body = None
            # arrays like those of an earlier request passed the checks of arrays_for then
            if type(inputs) is dict and len(inputs) == input_count:
                body = writer.write_cached(inputs)
            if body is None:
                arrays = arrays_for(signature, inputs)
                try:
                    body = writer.write(arrays)
                except UnicodeEncodeError as error:
                    raise encoding_error(signature, arrays) from error
            return Request(path, body, decode, spec.name)

        return request_for

    def classify(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Request[list[list[Classification]]]:
        request = messages.ClassificationRequest(
            model_spec=spec.to_message(), input=input_message(examples, context)
        )
        return _message_request(
            services.CLASSIFY, request, spec.name, lambda response: _classifications(response.result)
        )

    def regress(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Request[Array]:
        request = messages.RegressionRequest(
            model_spec=spec.to_message(), input=input_message(examples, context)
        )
        return _message_request(
            services.REGRESS, request, spec.name, lambda response: _regressions(response.result)
        )

    def multi_inference(
        self, tasks: Sequence[tuple[ModelSpec, str]], examples: Sequence[Features], context: Features | None
    ) -> Request[Inference]:
        request = messages.MultiInferenceRequest(input=input_message(examples, context))
        for spec, method_name in tasks:
            request.tasks.add(model_spec=spec.to_message(), method_name=method_name)
        names = [spec.signature for spec, _ in tasks]

        def read(response: Any) -> Inference:
            if len(response.results) != len(names):
                raise ProtocolError(
                    f"the response has {len(response.results)} results, expected {len(names)}"
                )
            return dict(zip(names, map(_inference, response.results), strict=True))

        return _message_request(services.MULTI_INFERENCE, request, tasks[0][0].name if tasks else None, read)

    def metadata(self, spec: ModelSpec) -> Request[dict[str, Signature]]:
        request = messages.GetModelMetadataRequest(
            model_spec=spec.to_message(), metadata_field=[_SIGNATURE_DEF]
        )
        return _message_request(services.GET_MODEL_METADATA, request, spec.name, _read_metadata)

    def resolve_version(self, spec: ModelSpec) -> Request[int]:
        # The status ignores labels; metadata has the version that the label stands for.
        request = messages.GetModelMetadataRequest(
            model_spec=spec.to_message(), metadata_field=[_SIGNATURE_DEF]
        )
        return _message_request(services.GET_MODEL_METADATA, request, spec.name, _read_version)

    def status(self, spec: ModelSpec) -> Request[list[VersionStatus]]:
        request = messages.GetModelStatusRequest(model_spec=spec.to_message())
        return _message_request(services.GET_MODEL_STATUS, request, spec.name, _read_status)

    def reload_config(self, config: Any) -> Request[None]:
        request = messages.ReloadConfigRequest(config=config)
        return _message_request(services.RELOAD_CONFIG, request, None, _read_reload)


def _message_request(method: Method, request: Any, model: str | None, read: Any) -> Request[Any]:
    def decode(data: bytes) -> Any:
        try:
            return read(method.response.FromString(data))
        # UnicodeDecodeError: protobuf 4 checks strings only when they are read
        except (messages.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(
                f"the response is not a valid {method.response.DESCRIPTOR.full_name} "
                f"({len(data)} bytes): {error}"
            ) from error

    return Request(method.path, request.SerializeToString(), decode, model)


def _classifications(result: Any) -> list[list[Classification]]:
    return [
        [Classification(entry.label, entry.score) for entry in classes.classes]
        for classes in result.classifications
    ]


def _regressions(result: Any) -> Array:
    return np.array([entry.value for entry in result.regressions], np.float32)


def _inference(result: Any) -> list[list[Classification]] | Array:
    kind = result.WhichOneof("result")
    if kind == "classification_result":
        return _classifications(result.classification_result)
    if kind == "regression_result":
        return _regressions(result.regression_result)
    raise ProtocolError("a result in the response is neither a classification nor a regression")


def _read_metadata(response: Any) -> dict[str, Signature]:
    packed = response.metadata.get(_SIGNATURE_DEF)
    if packed is None:
        raise ProtocolError(f"the response has no {_SIGNATURE_DEF!r}, only {sorted(response.metadata)}")
    found = messages.SignatureDefMap()
    try:
        unpacked = packed.Unpack(found)
    except messages.DecodeError as error:
        raise ProtocolError(f"{_SIGNATURE_DEF!r} in the response does not parse: {error}") from error
    if not unpacked:
        raise ProtocolError(
            f"{_SIGNATURE_DEF!r} in the response is a {packed.type_url}, expected a SignatureDefMap"
        )
    return signatures_of(found.signature_def)


def _read_version(response: Any) -> int:
    return int(response.model_spec.version.value)


def _read_status(response: Any) -> list[VersionStatus]:
    return [
        VersionStatus(
            entry.version,
            _enum_name(entry, "state", entry.state),
            _enum_name(entry.status, "error_code", entry.status.error_code),
            entry.status.error_message,
        )
        for entry in response.model_version_status
    ]


def _enum_name(message: Any, field: str, number: int) -> str:
    value = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(number)
    return value.name if value is not None else str(number)


def _read_reload(response: Any) -> None:
    code = _enum_name(response.status, "error_code", response.status.error_code)
    if code != "OK":
        text = response.status.error_message
        raise error_class_for(code)(f"{code}: {text}", code=code, server_message=text)
