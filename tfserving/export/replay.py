"""Runs a version in a new process, as a server would.

Python functions, tables and imported packages of the exporting process are not available there.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tfserving
from tfserving.errors import ExportError, TfServingError
from tfserving.export import sources
from tfserving.export.warmup_requests import can_generate, generate_requests
from tfserving.repository.warmup_records import read_warmup, unpack_requests, warmup_file
from tfserving.wire import messages
from tfserving.wire.dtypes import Arrays
from tfserving.wire.signatures import read_saved_model

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


def run_in_fresh_process(version_dir: str | os.PathLike[str]) -> list[Failure]:
    """Load a version in a new process and run its warmup records or, without any, each signature once.

    Without warmup records, the inputs are zeros, and signatures that take strings are not run. The process
    uses the CPU, since another one may hold the memory of the GPU.

    Returns:
        The requests that failed. A server does not load a version with a warmup record that fails.

    Raises:
        ExportError: TensorFlow cannot load the version, or a file of warmup records is damaged.
    """
    # With -c, the working directory is first on sys.path: the process finds this package in a checkout too.
    package_root = Path(tfserving.__file__).resolve().parents[1]
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, os.path.abspath(version_dir)],
        cwd=package_root,
        # Without Keras, which a session does not need, TensorFlow is imported in half the time.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", _LEGACY_KERAS: "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise ExportError(f"the process that ran the model exited with status {result.returncode}: {last}")
    # Packages that the model needs may print as well.
    printed = json.loads(result.stdout.strip().splitlines()[-1])
    if isinstance(printed, str):
        raise ExportError(printed)
    return [Failure(*failure) for failure in printed]


def main(version_dir: str) -> int:
    """Run a version in this process; prints the failures, or why it cannot run, as one line of JSON."""
    try:
        print(json.dumps(_run_version(Path(version_dir))))
    except TfServingError as error:
        print(json.dumps(str(error)))
    return 0


def _run_version(version_dir: Path) -> list[Failure]:
    """Run the requests in a session of the `serve` graph, with the tensors in the signatures.

    tensorflow_serving/servables/tensorflow/predict_util.cc does the same.
    """
    import tensorflow as tf

    v1, errors = tf.compat.v1, (tf.errors.OpError, TfServingError, ValueError, TypeError, KeyError)
    failures = []
    with v1.Session(graph=tf.Graph()) as session:
        try:
            definitions = _load(v1.saved_model.loader, session, version_dir).signature_def
        except Exception as error:
            raise ExportError(f"TensorFlow cannot load the model: {_reason(error)}") from error
        recorded = warmup_file(version_dir).exists()
        requests = _recorded(version_dir) if recorded else _generated(version_dir)
        for number, request in enumerate(requests, start=1):
            name = "?"
            try:
                for name, inputs in request:
                    _run(session, definitions, name, inputs)
            except errors as error:
                failures.append(Failure(number, name, _reason(error)))
    return failures


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


def _recorded(version_dir: Path) -> Iterator[Iterable[_Request]]:
    return map(_requests, read_warmup(version_dir))


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


def _run(session: Any, signatures: Any, name: str, inputs: Mapping[str, Any]) -> None:
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
    session.run([info.name for info in signature.outputs.values()], feeds)
