"""The calls as URLs and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from tfserving.client.codec import Inference
from tfserving.client.features import Features, checked, values_of
from tfserving.client.flow import Exchange
from tfserving.client.inputs import arrays_for
from tfserving.client.rest_json import b64, dumps, from_json, loads, to_json
from tfserving.client.types import Classification, VersionStatus
from tfserving.errors import InvalidInputError, ProtocolError, UnsupportedError
from tfserving.wire import messages
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import Arrays
from tfserving.wire.signatures import Signature, signatures_of

T = TypeVar("T")


class RestCodec:
    """See `tfserving.client.codec.Codec`.

    Args:
        row_format: send `instances`, one entry an example, and not `inputs`, one entry an input. The latter
            holds any shapes; the former needs inputs and outputs that all begin with the batch.
    """

    def __init__(self, *, row_format: bool = False) -> None:
        self._row_format = row_format

    def predictor(
        self, spec: ModelSpec, signature: Signature, outputs: Sequence[str]
    ) -> tuple[Exchange[Arrays], Callable[[Any], bytes]]:
        def decode(data: bytes) -> Arrays:
            found = _outputs(loads(data), signature)
            # the REST API has no output filter
            return {name: found[name] for name in outputs} if outputs else found

        exchange = Exchange(f"{_path(spec)}:predict", None, decode, spec.name)
        return exchange, lambda inputs: self._body(spec, arrays_for(signature, inputs))

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
        return dumps(body, plain=finite)

    def classify(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Exchange[list[list[Classification]]]:
        def read(results: Any) -> list[list[Classification]]:
            return [[Classification(str(label), float(score)) for label, score in one] for one in results]

        return _of_examples("classify", spec, examples, context, read)

    def regress(
        self, spec: ModelSpec, examples: Sequence[Features], context: Features | None
    ) -> Exchange[np.ndarray[Any, Any]]:
        def read(results: Any) -> np.ndarray[Any, Any]:
            return np.array([float(value) for value in results], np.float32)

        return _of_examples("regress", spec, examples, context, read)

    def multi_inference(
        self,
        tasks: Sequence[tuple[ModelSpec, str]],
        examples: Sequence[Features],
        context: Features | None,
    ) -> Exchange[Inference]:
        raise UnsupportedError(
            "the REST API has no multi_inference: call classify and regress, or use TfRpcClient"
        )

    def metadata(self, spec: ModelSpec) -> Exchange[dict[str, Signature]]:
        return Exchange(f"{_path(spec)}/metadata", None, _read_metadata, spec.name)

    def status(self, spec: ModelSpec) -> Exchange[list[VersionStatus]]:
        return Exchange(_path(ModelSpec(spec.name, spec.version)), None, _read_status, spec.name)

    def reload_config(self, config: Any) -> Exchange[None]:
        raise UnsupportedError("the REST API has no reload_config: use TfRpcClient")


def _path(spec: ModelSpec) -> str:
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.label is not None:
        return f"{path}/labels/{quote(spec.label, safe='')}"
    return path if spec.version is None else f"{path}/versions/{spec.version}"


def _rows(values: dict[str, Any]) -> Any:
    """`instances` from whole inputs: bare values where there is one input, else a dict an example."""
    sizes = {alias: len(value) if hasattr(value, "__len__") else None for alias, value in values.items()}
    if len(set(sizes.values())) != 1 or None in sizes.values():
        raise InvalidInputError(
            f"row format needs inputs that all begin with one batch dimension, not of sizes {sizes}: "
            "use TfRestClient(row_format=False)"
        )
    if len(values) == 1:
        return next(iter(values.values()))
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _outputs(reply: Any, signature: Signature) -> Arrays:
    infos = signature.outputs
    if not isinstance(reply, dict) or len(reply.keys() & {"outputs", "predictions"}) != 1:
        raise ProtocolError(f"the reply has neither 'outputs' nor 'predictions': {reply!r:.60}")
    columns = reply.get("outputs")
    rows = reply.get("predictions")
    if len(infos) == 1:
        columns = dict.fromkeys(infos, rows if "predictions" in reply else columns)
    elif "predictions" in reply:
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ProtocolError(f"predictions without names, where {len(infos)} outputs were expected")
        try:
            columns = {name: [row[name] for row in rows] for name in infos}
        except KeyError as error:
            raise ProtocolError(f"a prediction without the output {error}") from error
    if not isinstance(columns, dict) or columns.keys() != infos.keys():
        raise ProtocolError(f"other outputs than {', '.join(map(repr, infos))}: {columns!r:.60}")
    return {name: from_json(columns[name], info) for name, info in infos.items()}


def _of_examples(
    verb: str,
    spec: ModelSpec,
    examples: Sequence[Features],
    context: Features | None,
    read: Callable[[Any], T],
) -> Exchange[T]:
    body: dict[str, Any] = {"signature_name": spec.signature} if spec.signature else {}
    if context is not None:
        body["context"] = _features(context)
    body["examples"] = [_features(features) for features in checked(examples)]

    def decode(data: bytes) -> T:
        return _read(data, lambda reply: read(reply["results"]))

    return Exchange(f"{_path(spec)}:{verb}", dumps(body, plain=False), decode, spec.name)


def _features(features: Features) -> dict[str, Any]:
    return {
        name: [b64(item) if isinstance(item, bytes) else item for item in values_of(name, value)]
        for name, value in features.items()
    }


def _read_metadata(data: bytes) -> dict[str, Signature]:
    from google.protobuf import json_format

    def read(reply: Any) -> dict[str, Signature]:
        found = messages.SignatureDefMap()
        try:
            json_format.ParseDict(reply["metadata"]["signature_def"], found, ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise ProtocolError(f"metadata that is no SignatureDefMap: {error}") from error
        return signatures_of(found.signature_def)

    return _read(data, read)


def _read_status(data: bytes) -> list[VersionStatus]:
    def read(reply: Any) -> list[VersionStatus]:
        return [
            VersionStatus(
                int(entry["version"]),
                str(entry["state"]),
                str(entry["status"]["error_code"]),
                str(entry["status"]["error_message"]),
            )
            for entry in reply["model_version_status"]
        ]

    return _read(data, read)


def _read(data: bytes, read: Callable[[Any], T]) -> T:
    """What `read` makes of the reply; an answer of another form is a ProtocolError."""
    reply = loads(data)
    try:
        return read(reply)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ProtocolError(f"an answer of unknown form ({error!r}): {data[:60]!r}") from error
