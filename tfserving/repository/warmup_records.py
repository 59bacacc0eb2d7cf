"""The warmup requests that a servable brings along: `assets.extra/tf_serving_warmup_requests`.

A TFRecord file of `tensorflow.serving.PredictionLog`. A server answers every request in it before the version
counts as AVAILABLE, so that the first caller does not pay for what TensorFlow does only once
(tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tfserving.errors import InvalidInputError, ProtocolError, UnsupportedError
from tfserving.repository import tfrecord
from tfserving.wire import messages, tensors, tf_examples
from tfserving.wire.signatures import DEFAULT_SIGNATURE

MAX_RECORDS = 1000  # WarmupConsts::kMaxNumRecords: a server refuses a version with more


def warmup_file(version_dir: Path) -> Path:
    """Where the warmup requests of the version at `version_dir` are kept."""
    return version_dir / "assets.extra" / "tf_serving_warmup_requests"


def write_warmup(version_dir: Path, requests: Iterable[bytes]) -> int:
    """Writes serialized `PredictRequest`s as the warmup requests of `version_dir`, in place of any there are.

    Returns:
        how many were written.

    Raises:
        InvalidInputError: more than `MAX_RECORDS`.
        ProtocolError: bytes that are no PredictRequest.
    """
    logs = [_log(request) for request in requests]
    if len(logs) > MAX_RECORDS:
        raise InvalidInputError(
            f"{len(logs)} warmup requests: a server loads no version with more than {MAX_RECORDS}"
        )
    path = warmup_file(version_dir)
    path.parent.mkdir(exist_ok=True)
    return tfrecord.write_records(path, logs)


def remove_warmup(version_dir: Path) -> None:
    """Removes the warmup requests of `version_dir`, and assets.extra when nothing else is in it."""
    path = warmup_file(version_dir)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def read_warmup(version_dir: Path) -> Iterator[Any]:
    """Yields the warmup requests of `version_dir` as `PredictionLog` messages, none when there is no file.

    Raises:
        ProtocolError: a damaged file, a record that is no PredictionLog, or more than `MAX_RECORDS`.
    """
    path = warmup_file(version_dir)
    if not path.exists():
        return
    for number, record in enumerate(tfrecord.read_records(path), start=1):
        if number > MAX_RECORDS:
            raise ProtocolError(f"{path}: more than {MAX_RECORDS} warmup requests: write the file with fewer")
        try:
            yield messages.PredictionLog.FromString(record)
        except DecodeError as error:
            raise ProtocolError(f"{path}: record {number} is no PredictionLog: {error}") from error


def asked(record: Any) -> Iterator[tuple[str, dict[str, np.ndarray[Any, Any]], tuple[str, ...]]]:
    """What a `PredictionLog` asks of a model: names of signatures, inputs and the wanted outputs (none: all).

    The kinds are those that saved_model_warmup.cc replays.

    Raises:
        UnsupportedError: a record of a kind that servers do not answer either.
        InvalidInputError, ProtocolError: inputs that are none.
    """
    kind = record.WhichOneof("log_type")
    if kind is None:
        raise UnsupportedError("a warmup record that is no predict, classify, regress or multi-inference log")
    request = getattr(record, kind).request
    if kind == "predict_log":
        inputs = {alias: tensors.to_array(proto) for alias, proto in request.inputs.items()}
        yield request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs, tuple(request.output_filter)
        return
    for task in request.tasks if kind == "multi_inference_log" else (request,):
        inputs = {tf_examples.INPUTS: tf_examples.serialized(request.input)}
        yield task.model_spec.signature_name or DEFAULT_SIGNATURE, inputs, ()


def _log(request: bytes) -> bytes:
    log = messages.PredictionLog()
    try:
        log.predict_log.request.ParseFromString(request)
    except DecodeError as error:
        raise ProtocolError(f"a warmup request that is no PredictRequest: {error}") from error
    return bytes(log.SerializeToString())
