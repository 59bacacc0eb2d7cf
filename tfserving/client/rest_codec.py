"""Calls as URLs and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
from google.protobuf import json_format

from tfserving.client.features import Features, check_context, check_examples, values_of
from tfserving.client.flow import Request
from tfserving.client.inputs import arrays_for, encoding_error
from tfserving.client.printable import escape_unprintable
from tfserving.client.rest_json import decode_json, encode_base64, encode_json, from_json, to_json
from tfserving.client.signature_cache import PreparedPredict
from tfserving.client.types import Classification, Inference, VersionStatus
from tfserving.errors import InvalidInputError, ProtocolError, UnsupportedError
from tfserving.wire import messages
from tfserving.wire.dtypes import Array, Arrays
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import Signature, signatures_of

T = TypeVar("T")


class RestCodec:
    """Writes requests and reads responses; has the methods of `RpcCodec`.

    Args:
        row_format: send `instances`, a list with one entry per example, instead of `inputs`, an object with
            one entry per input. `instances` needs inputs and outputs whose first dimension is the batch;
            `inputs` takes any shape.
    """

    def __init__(self, *, row_format: bool = False) -> None:
        self._row_format = row_format

    def prepare_predict(
        self, spec: ModelSpec, signature: Signature, outputs: Sequence[str]
    ) -> PreparedPredict:
        def decode(data: bytes) -> Arrays:
            found = _outputs(decode_json(data), signature)
            # the REST API has no output filter
            return {name: found[name] for name in outputs} if outputs else found

        def request_for(inputs: Any) -> Request[Arrays]:
            arrays = arrays_for(signature, inputs)
            try:
                body = self._body(spec, arrays)
            except UnicodeEncodeError as error:
                raise encoding_error(signature, arrays) from error
            return Request(f"{_path(spec)}:predict", body, decode, spec.name)

        return request_for

    def _body(self, spec: ModelSpec, arrays: Arrays) -> bytes:
        values, finite = {}, True
        for alias, array in arrays.items():
            values[alias], is_finite = to_json(array)
            finite &= is_finite
        body: dict[str, Any] = {"signature_name": spec.signature} if spec.signature else {}
        if self._row_format:
            body["instances"] = _rows(values)
        else:
            body["inputs"] = values
        return encode_json(body, plain=finite)

    def classify(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Request[list[list[Classification]]]:
        def read(results: Any) -> list[list[Classification]]:
            return [[Classification(str(label), float(score)) for label, score in one] for one in results]

        return _of_examples("classify", spec, examples, context, read)

    def regress(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Request[Array]:
        def read(results: Any) -> Array:
            return np.array([float(value) for value in results], np.float32)

        return _of_examples("regress", spec, examples, context, read)

    def multi_inference(
        self, tasks: Sequence[tuple[ModelSpec, str]], examples: Sequence[Features], context: Features | None
    ) -> Request[Inference]:
        raise UnsupportedError(
            "multi_inference is not part of the REST API; call classify and regress, or use TfRpcClient"
        )

    def metadata(self, spec: ModelSpec) -> Request[dict[str, Signature]]:
        return Request(f"{_path(spec)}/metadata", None, partial(_read, _read_metadata), spec.name)

    def resolve_version(self, spec: ModelSpec) -> Request[int]:
        return Request(f"{_path(spec)}/metadata", None, partial(_read, _read_version), spec.name)

    def status(self, spec: ModelSpec) -> Request[list[VersionStatus]]:
        path = _path(ModelSpec(spec.name, spec.version))
        return Request(path, None, partial(_read, _read_status), spec.name)

    def reload_config(self, config: Any) -> Request[None]:
        raise UnsupportedError("reload_config is not part of the REST API; use TfRpcClient")


def _path(spec: ModelSpec) -> str:
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.label is not None:
        return f"{path}/labels/{quote(spec.label, safe='')}"
    return path if spec.version is None else f"{path}/versions/{spec.version}"


def _rows(values: dict[str, Any]) -> Any:
    """`instances` from whole inputs: bare values for a single input, else one dict per example."""
    sizes = {alias: len(value) if hasattr(value, "__len__") else None for alias, value in values.items()}
    if len(set(sizes.values())) != 1 or None in sizes.values():
        raise InvalidInputError(
            f"the inputs have the batch sizes {sizes}; row format needs one size for all of them: "
            "use TfRestClient(row_format=False)"
        )
    if len(values) == 1:
        return next(iter(values.values()))
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _outputs(response: Any, signature: Signature) -> Arrays:
    infos = signature.outputs
    if not isinstance(response, dict) or len(response.keys() & {"outputs", "predictions"}) != 1:
        raise ProtocolError(
            f"the response has not exactly one of 'outputs' and 'predictions': {response!r:.60}"
        )
    columns = response.get("outputs")
    rows = response.get("predictions")
    if len(infos) == 1:
        columns = dict.fromkeys(infos, rows if "predictions" in response else columns)
    elif "predictions" in response:
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ProtocolError(
                f"the predictions in the response have no names, expected {len(infos)} outputs"
            )
        try:
            columns = {name: [row[name] for row in rows] for name in infos}
        except KeyError as error:
            raise ProtocolError(f"a prediction in the response lacks the output {error}") from error
    if not isinstance(columns, dict) or columns.keys() != infos.keys():
        raise ProtocolError(
            f"the response has other outputs than {', '.join(map(repr, infos))}: {columns!r:.60}"
        )
    return {name: from_json(columns[name], info) for name, info in infos.items()}


def _of_examples(
    verb: str,
    spec: ModelSpec,
    examples: Sequence[Features],
    context: Features | None,
    read: Callable[[Any], T],
) -> Request[T]:
    body: dict[str, Any] = {"signature_name": spec.signature} if spec.signature else {}
    if context is not None:
        body["context"] = _features(check_context(context))
    body["examples"] = [_features(features) for features in check_examples(examples)]
    decode = partial(_read, lambda response: read(response["results"]))
    return Request(f"{_path(spec)}:{verb}", encode_json(body, plain=False), decode, spec.name)


def _features(features: Features) -> dict[str, Any]:
    return {
        name: [encode_base64(item) if isinstance(item, bytes) else item for item in values_of(name, value)]
        for name, value in features.items()
    }


def _read_metadata(response: Any) -> dict[str, Signature]:
    found = messages.SignatureDefMap()
    try:
        json_format.ParseDict(response["metadata"]["signature_def"], found, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        reason = escape_unprintable(str(error))
        raise ProtocolError(f"the metadata in the response is not a SignatureDefMap: {reason}") from error
    return signatures_of(found.signature_def)


def _read_version(response: Any) -> int:
    return int(response["model_spec"]["version"])


def _read_status(response: Any) -> list[VersionStatus]:
    return [
        VersionStatus(
            int(entry["version"]),
            str(entry["state"]),
            str(entry["status"]["error_code"]),
            str(entry["status"]["error_message"]),
        )
        for entry in response["model_version_status"]
    ]


def _read(read: Callable[[Any], T], data: bytes) -> T:
    """Return read(response); raise ProtocolError for a response of another form."""
    response = decode_json(data)
    try:
        return read(response)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ProtocolError(f"the response has an unexpected form ({error!r}): {data[:60]!r}") from error
