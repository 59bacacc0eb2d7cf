"""The calls as gRPC messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfserving.client.flow import Exchange
from tfserving.client.inputs import arrays_for, in_order
from tfserving.client.types import Classification, VersionStatus
from tfserving.errors import ProtocolError, error_for
from tfserving.wire import messages, predict, services
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import Arrays
from tfserving.wire.services import Method
from tfserving.wire.signatures import Signature, signatures_of

if TYPE_CHECKING:
    from tfserving.client.codec import Inference
    from tfserving.client.features import Features

_PREDICT_PATH = services.PREDICT.path
_SIGNATURE_DEF = "signature_def"


class RpcCodec:
    """See `tfserving.client.codec.Codec`."""

    def predictor(
        self, spec: ModelSpec, signature: Signature, outputs: Sequence[str]
    ) -> tuple[Exchange[Arrays], Callable[[Any], bytes]]:
        writer = predict.RequestWriter(spec, outputs)
        rewrite, complete = writer.rewrite, len(signature.inputs)

        def body(inputs: Any) -> bytes:
            # what is like something that passed before passes again
            if type(inputs) is dict and len(inputs) == complete:
                again = rewrite(inputs)
                if again is not None:
                    return again
            return writer.write(arrays_for(signature, inputs))

        wanted = tuple(outputs or signature.outputs)

        def decode(data: bytes) -> Arrays:
            return in_order(predict.decode_response(data)[1], wanted)

        return Exchange(_PREDICT_PATH, None, decode, spec.name), body

    def classify(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Exchange[list[list[Classification]]]:
        request = messages.ClassificationRequest(
            model_spec=spec.to_message(), input=_input(examples, context)
        )
        return _exchange(services.CLASSIFY, request, spec.name, lambda reply: _classifications(reply.result))

    def regress(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Exchange[np.ndarray[Any, Any]]:
        request = messages.RegressionRequest(model_spec=spec.to_message(), input=_input(examples, context))
        return _exchange(services.REGRESS, request, spec.name, lambda reply: _regressions(reply.result))

    def multi_inference(
        self,
        tasks: Sequence[tuple[ModelSpec, str]],
        examples: Sequence[Features],
        context: Features | None,
    ) -> Exchange[Inference]:
        request = messages.MultiInferenceRequest(input=_input(examples, context))
        for spec, method_name in tasks:
            request.tasks.add(model_spec=spec.to_message(), method_name=method_name)
        wanted = [spec.signature for spec, _ in tasks]

        def read(reply: Any) -> Inference:
            if len(reply.results) != len(wanted):
                raise ProtocolError(f"{len(reply.results)} results for {len(wanted)} signatures")
            return dict(zip(wanted, map(_inference, reply.results), strict=True))

        return _exchange(services.MULTI_INFERENCE, request, tasks[0][0].name if tasks else None, read)

    def metadata(self, spec: ModelSpec) -> Exchange[dict[str, Signature]]:
        request = messages.GetModelMetadataRequest(
            model_spec=spec.to_message(), metadata_field=[_SIGNATURE_DEF]
        )
        return _exchange(services.GET_MODEL_METADATA, request, spec.name, _read_metadata)

    def status(self, spec: ModelSpec) -> Exchange[list[VersionStatus]]:
        request = messages.GetModelStatusRequest(model_spec=spec.to_message())
        return _exchange(services.GET_MODEL_STATUS, request, spec.name, _read_status)

    def reload_config(self, config: Any) -> Exchange[None]:
        request = messages.ReloadConfigRequest(config=config)
        return _exchange(services.RELOAD_CONFIG, request, None, _read_reload)


def _input(examples: Sequence[Features], context: Features | None) -> Any:
    from tfserving.client.features import input_of  # not needed where tensors are sent

    return input_of(examples, context)


def _exchange(method: Method, request: Any, model: str | None, read: Any) -> Exchange[Any]:
    def decode(data: bytes) -> Any:
        try:
            return read(method.response.FromString(data))
        # UnicodeDecodeError: protobuf 4 finds out when a string is read
        except (messages.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(
                f"{len(data)} bytes that are no {method.response.DESCRIPTOR.full_name}: {error}"
            ) from error

    return Exchange(method.path, request.SerializeToString(), decode, model)


def _classifications(result: Any) -> list[list[Classification]]:
    return [
        [Classification(entry.label, entry.score) for entry in classes.classes]
        for classes in result.classifications
    ]


def _regressions(result: Any) -> np.ndarray[Any, Any]:
    return np.array([entry.value for entry in result.regressions], np.float32)


def _inference(result: Any) -> list[list[Classification]] | np.ndarray[Any, Any]:
    kind = result.WhichOneof("result")
    if kind == "classification_result":
        return _classifications(result.classification_result)
    if kind == "regression_result":
        return _regressions(result.regression_result)
    raise ProtocolError("a result that is neither a classification nor a regression")


def _read_metadata(reply: Any) -> dict[str, Signature]:
    packed = reply.metadata.get(_SIGNATURE_DEF)
    if packed is None:
        raise ProtocolError(f"the reply has no {_SIGNATURE_DEF!r}, only {sorted(reply.metadata)}")
    found = messages.SignatureDefMap()
    try:
        unpacked = packed.Unpack(found)
    except messages.DecodeError as error:
        raise ProtocolError(f"{_SIGNATURE_DEF!r} does not parse: {error}") from error
    if not unpacked:
        raise ProtocolError(f"{_SIGNATURE_DEF!r} is a {packed.type_url}, not a SignatureDefMap")
    return signatures_of(found.signature_def)


def _read_status(reply: Any) -> list[VersionStatus]:
    return [
        VersionStatus(
            entry.version,
            _enum_name(entry, "state", entry.state),
            _enum_name(entry.status, "error_code", entry.status.error_code),
            entry.status.error_message,
        )
        for entry in reply.model_version_status
    ]


def _enum_name(message: Any, field: str, number: int) -> str:
    known = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(number)
    return known.name if known is not None else str(number)


def _read_reload(reply: Any) -> None:
    code = _enum_name(reply.status, "error_code", reply.status.error_code)
    if code != "OK":
        text = reply.status.error_message
        raise error_for(code)(f"{code}: {text}", code=code, server_message=text)
