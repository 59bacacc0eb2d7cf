"""The warmup records of a version: `assets.extra/tf_serving_warmup_requests`.

The file holds TFRecords of `tensorflow.serving.PredictionLog`. A server replays them before the version
becomes AVAILABLE, so that the first caller does not wait for work that TensorFlow does only once
(tensorflow_serving/servables/tensorflow/saved_model_warmup_util.cc).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from tfserving.errors import InvalidInputError, ProtocolError, RepositoryError, UnsupportedError
from tfserving.repository import tfrecord, versions
from tfserving.wire import messages, tensors, tf_examples
from tfserving.wire.dtypes import Arrays
from tfserving.wire.signatures import DEFAULT_SIGNATURE

MAX_RECORDS = 1000  # WarmupConsts::kMaxNumRecords; servers reject a version with more


def warmup_file(version_dir: Path) -> Path:
    """The path of the warmup records of a version."""
    return version_dir / "assets.extra" / "tf_serving_warmup_requests"


def write_warmup(version_dir: Path, requests: Iterable[bytes]) -> None:
    """Write serialized `PredictRequest`s as the warmup records of a version; existing ones are replaced.

    Raises:
        InvalidInputError: there are more than `MAX_RECORDS`.
        ProtocolError: one is not a PredictRequest.
        RepositoryError: the file cannot be written.
    """
    logs = [_as_log(request) for request in requests]
    if len(logs) > MAX_RECORDS:
        raise InvalidInputError(f"{len(logs)} warmup records are too many (at most {MAX_RECORDS})")
    path = warmup_file(version_dir)
    try:
        path.parent.mkdir(exist_ok=True)
        tfrecord.write_records(path, logs)
    except OSError as error:
        raise RepositoryError(f"cannot write {path}: {error.strerror}") from error


def move_warmup(source_dir: Path, version_dir: Path) -> None:
    """Move the warmup records of `source_dir` to a version by one rename; existing ones are replaced.

    Raises:
        RepositoryError: the version cannot be written.
    """
    target = warmup_file(version_dir)
    try:
        versions.install_file(warmup_file(source_dir), target)
    except OSError as error:
        raise RepositoryError(
            f"cannot write {target}: {error.strerror}; make the version writable, or publish a new version "
            "with warmup records"
        ) from error


def remove_warmup(version_dir: Path) -> None:
    """Remove the warmup records of a version, and assets.extra if it is then empty."""
    path = warmup_file(version_dir)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def read_warmup(version_dir: Path) -> Iterator[Any]:
    """Yield the warmup records of a version as `PredictionLog` messages; none if there is no file.

    Raises:
        ProtocolError: the file is not a regular one or is damaged, or has more than `MAX_RECORDS` records or
            one that is not a PredictionLog.
    """
    path = warmup_file(version_dir)
    if path.exists():
        yield from read_warmup_file(path)


def read_warmup_file(path: Path) -> Iterator[Any]:
    """As `read_warmup`, for the path of a file that exists."""
    if not path.is_file():  # a FIFO without a writer would block
        raise ProtocolError(f"{path} is not a regular file; remove it or export the version again")
    for number, record in enumerate(tfrecord.read_records(path), start=1):
        if number > MAX_RECORDS:
            raise ProtocolError(f"{path} has too many warmup records (at most {MAX_RECORDS}); write fewer")
        try:
            yield messages.PredictionLog.FromString(record)
        except DecodeError as error:
            raise ProtocolError(f"{path}: record {number} is not a PredictionLog: {error}") from error


def unpack_requests(record: Any) -> Iterator[tuple[str, Arrays, tuple[str, ...]]]:
    """Yield (signature name, inputs, names of outputs) of each request in a `PredictionLog`.

    No names of outputs mean all outputs. As in saved_model_warmup.cc, a record without a log has no requests.

    Raises:
        UnsupportedError: the kind of the record is not supported.
        InvalidInputError, ProtocolError: an input is not a valid tensor.
    """
    kind = record.WhichOneof("log_type")
    if kind is None:
        return
    if kind in ("session_run_log", "predict_streamed_log"):
        raise UnsupportedError(
            f"a warmup record has a {kind}, expected a predict, classify, regress or multi-inference log"
        )
    request = getattr(record, kind).request
    if kind == "predict_log":
        inputs = {alias: tensors.to_array(proto) for alias, proto in request.inputs.items()}
        yield request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs, tuple(request.output_filter)
        return
    for task in request.tasks if kind == "multi_inference_log" else (request,):
        inputs = {tf_examples.INPUTS: tf_examples.serialized(request.input)}
        yield task.model_spec.signature_name or DEFAULT_SIGNATURE, inputs, ()


def _as_log(request: bytes) -> bytes:
    log = messages.PredictionLog()
    try:
        log.predict_log.request.ParseFromString(request)
    except DecodeError as error:
        raise ProtocolError(f"a warmup record is not a PredictRequest: {error}") from error
    return bytes(log.SerializeToString())
