"""Runs a version in a new process, as a server would.

Python functions, tables and imported packages of the exporting process are not available there.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tfserving
from tfserving.errors import DeadlineError, ExportError, TfServingError
from tfserving.export import sources
from tfserving.export.samples import can_generate
from tfserving.export.warmup_requests import generate_requests
from tfserving.repository import tfrecord
from tfserving.repository.warmup_records import read_warmup, unpack_requests, warmup_file
from tfserving.wire import messages, predict
from tfserving.wire.dtypes import Arrays
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import DEFAULT_SIGNATURE, read_saved_model

# With -m, Python would warn that the package imports the module before it runs.
_PROGRAM = "import sys; from tfserving.export.replay import main; sys.exit(main(sys.argv[1]))"

_LEGACY_KERAS = "TF_USE_LEGACY_KERAS"

# Packages with operations that tensorflow_model_server contains (tensorflow_serving/model_servers/BUILD).
_OP_PACKAGES = ("tensorflow_text", "tensorflow_decision_forests")
_UNKNOWN_OP = re.compile(r"Op type not registered '([^']+)'")

_Request = tuple[str, Arrays]


class Failure(NamedTuple):
    """A request that failed: its number, counted from 1, the name of its signature, and the reason."""

    number: int
    signature: str
    reason: str


@dataclass(frozen=True)
class VersionRun:
    """What a version did in a new process.

    Attributes:
        replayed: number of requests that were replayed: warmup records, or generated ones.
        failures: those that failed. A server does not load a version with a warmup record that fails.
        responses: for each of the other requests, the outputs by name or the reason why it failed.
        seconds: the time that each of these requests took, in each round after the first.
    """

    replayed: int
    failures: list[Failure]
    responses: list[Arrays | str]
    seconds: list[float]


@dataclass(frozen=True)
class _Job:
    """What the new process does; its paths are absolute."""

    version_dir: str
    replay: bool
    records_dir: str
    requests: str
    responses: str
    rounds: int


def run_in_fresh_process(version_dir: str | os.PathLike[str]) -> list[Failure]:
    """Load a version in a new process and run its warmup records or, without any, each signature once.

    Returns:
        The requests that failed.

    Raises:
        ExportError: see `run_version`.
    """
    return run_version(version_dir).failures


def run_version(
    version_dir: str | os.PathLike[str],
    *,
    replay: bool = True,
    records_dir: Path | None = None,
    requests: Sequence[bytes] = (),
    rounds: int = 1,
    timeout: float | None = None,
) -> VersionRun:
    """Load a version in a new process and run it.

    The process uses the CPU, since another one may hold the memory of the GPU.

    Args:
        version_dir: directory of the version.
        replay: run the warmup records of the version or, without any, each signature once. The inputs are
            then zeros, and signatures that take strings are not run.
        records_dir: a directory with warmup records to replay instead of those of the version.
        requests: serialized PredictRequests to run after that, for their responses.
        rounds: how often to run `requests`. The first round has the responses, the others are timed.
        timeout: seconds for all of it, None for no limit.

    Raises:
        ExportError: TensorFlow cannot load the version, a file of warmup records is damaged, or the process
            crashed.
        DeadlineError: the process took longer than `timeout` and was killed.
    """
    with tempfile.TemporaryDirectory(prefix="tfserving-") as temporary:
        job = _Job(
            version_dir=os.path.abspath(version_dir),
            replay=replay,
            records_dir=os.path.abspath(records_dir or version_dir),
            requests=os.path.join(temporary, "requests"),
            responses=os.path.join(temporary, "responses"),
            rounds=rounds,
        )
        tfrecord.write_records(Path(job.requests), requests)
        printed = _run_process(job, timeout)
        responses: list[Arrays | str] = []
        if requests:
            outputs = tfrecord.read_records(Path(job.responses))
            errors = {int(number): reason for number, reason in printed["errors"].items()}
            for number in range(len(requests)):
                responses.append(errors.get(number) or predict.decode_response(next(outputs))[1])
    failures = [Failure(*failure) for failure in printed["failures"]]
    return VersionRun(printed["replayed"], failures, responses, printed["seconds"])


def _run_process(job: _Job, timeout: float | None) -> dict[str, Any]:
    """Run a job in a new process; returns what it printed."""
    # With -c, the working directory is first on sys.path: the process finds this package in a checkout too.
    package_root = Path(tfserving.__file__).resolve().parents[1]
    try:
        result = subprocess.run(
            [sys.executable, "-c", _PROGRAM, json.dumps(asdict(job))],
            cwd=package_root,
            # Without Keras, which a session does not need, TensorFlow is imported in half the time.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", _LEGACY_KERAS: "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise DeadlineError(
            f"the process that ran the model did not finish within {timeout:g} s; allow it more time"
        ) from error
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise ExportError(f"the process that ran the model {_describe_exit(result.returncode)}: {last}")
    # Packages that the model needs may print as well.
    printed: dict[str, Any] | str = json.loads(result.stdout.strip().splitlines()[-1])
    if isinstance(printed, str):
        raise ExportError(printed)
    return printed


def _describe_exit(status: int) -> str:
    if status > 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def main(job: str) -> int:
    """Run a job in this process; prints the result, or why the version cannot run, as one line of JSON."""
    try:
        print(json.dumps(_run_job(_Job(**json.loads(job)))))
    except TfServingError as error:
        print(json.dumps(str(error)))
    return 0


def _run_job(job: _Job) -> dict[str, Any]:
    """Run the requests in a session of the `serve` graph, with the tensors in the signatures.

    tensorflow_serving/servables/tensorflow/predict_util.cc does the same.
    """
    import tensorflow as tf

    v1, errors = tf.compat.v1, (tf.errors.OpError, TfServingError, ValueError, TypeError, KeyError)
    version_dir = Path(job.version_dir)
    with v1.Session(graph=tf.Graph()) as session:
        try:
            definitions = _load(v1.saved_model.loader, session, version_dir).signature_def
        except Exception as error:
            raise ExportError(f"TensorFlow cannot load the model: {_reason(error)}") from error

        def run(name: str, inputs: Arrays) -> Arrays:
            return _run(session, definitions, name, inputs)

        replayed, failures = 0, []
        for replayed, request in enumerate(_requests_to_replay(job) if job.replay else (), start=1):
            name = "?"
            try:
                for name, inputs in request:
                    run(name, inputs)
            except errors as error:
                failures.append(Failure(replayed, name, _reason(error)))
        return {"replayed": replayed, "failures": failures, **_run_requests(job, run, errors)}


def _run_requests(
    job: _Job, run: Callable[[str, Arrays], Arrays], errors: tuple[type[Exception], ...]
) -> dict[str, Any]:
    """Run the requests of a job, write their responses and return the errors and times."""
    calls = [predict.decode_request(data) for data in tfrecord.read_records(Path(job.requests))]
    requests = [(call.spec.signature or DEFAULT_SIGNATURE, dict(call.read())) for call in calls]
    failed: dict[int, str] = {}

    def respond() -> Iterator[bytes]:
        for number, (name, inputs) in enumerate(requests):
            try:
                yield predict.encode_response(ModelSpec(""), run(name, inputs), tensor_content=True)
            except errors as error:
                failed[number] = _reason(error)

    tfrecord.write_records(Path(job.responses), respond())
    seconds = []
    for _ in range(1, job.rounds):
        for number, (name, inputs) in enumerate(requests):
            if number not in failed:
                began = time.perf_counter()
                run(name, inputs)
                seconds.append(time.perf_counter() - began)
    return {"errors": failed, "seconds": seconds}


def _load(loader: Any, session: Any, version_dir: Path) -> Any:
    """Load the graph; if it needs operations of a package that is installed, import that first."""
    try:
        return loader.load(session, ["serve"], str(version_dir))
    except Exception as error:
        if not _UNKNOWN_OP.search(str(error)) or not _import_op_packages():
            raise
    return loader.load(session, ["serve"], str(version_dir))


def _import_op_packages() -> bool:
    os.environ.pop(_LEGACY_KERAS, None)  # they may use Keras
    imported = False
    for name in _OP_PACKAGES:
        try:
            importlib.import_module(name)
            imported = True
        except ImportError:
            continue
    return imported


def _reason(error: Exception) -> str:
    unknown = _UNKNOWN_OP.search(str(error))
    if unknown is None:
        return sources.summarize(error)
    return (
        f"this TensorFlow has no operation {unknown[1]!r}; install the package that defines it, "
        "and check that the server has it"
    )


def _requests_to_replay(job: _Job) -> Iterator[Iterable[_Request]]:
    records_dir = Path(job.records_dir)
    recorded = warmup_file(records_dir).exists()
    return map(_requests, read_warmup(records_dir)) if recorded else _generated(Path(job.version_dir))


def _generated(version_dir: Path) -> Iterator[Iterable[_Request]]:
    signatures = {
        name: signature
        for name, signature in read_saved_model(version_dir).items()
        if can_generate(signature)
    }
    for request in generate_requests("model", signatures, 1) if signatures else ():
        log = messages.PredictionLog()
        log.predict_log.request.ParseFromString(request)
        yield _requests(log)


def _requests(log: Any) -> Iterator[_Request]:
    return ((name, inputs) for name, inputs, _ in unpack_requests(log))


def _run(session: Any, signatures: Any, name: str, inputs: Mapping[str, Any]) -> Arrays:
    if name not in signatures:
        raise ExportError(f"the model has no signature {name!r}")
    signature = signatures[name]
    missing, unknown = set(signature.inputs) - set(inputs), set(inputs) - set(signature.inputs)
    missing -= set(signature.defaults)
    if missing or unknown:
        raise ExportError(
            f"the request has inputs {', '.join(sorted(inputs))}, "
            f"the signature {', '.join(sorted(signature.inputs))}"
        )
    feeds = {signature.inputs[alias].name: array for alias, array in inputs.items()}
    outputs = session.run({alias: info.name for alias, info in signature.outputs.items()}, feeds)
    # A scalar string is bytes, which numpy would make an array of that length without the zeros at its end.
    return {
        alias: np.asarray(value, dtype=object if isinstance(value, bytes) else None)
        for alias, value in outputs.items()
    }
