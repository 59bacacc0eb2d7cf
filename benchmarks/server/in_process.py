"""Calls of a model without a server: python -m benchmarks.server.in_process NAME SAVED_MODEL

For each line on standard input, a number of calls, prints the median seconds of so many: of a session's
callable, as the naive server calls the model, and of the embedded server's own way.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.server.models import INPUTS
from benchmarks.server.servers import ROOT


def main(name: str, path: str) -> None:
    """Answers line by line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tfserving.server.request_context import RequestContext
    from tfserving.server.runtime.saved_model import RuntimeOptions, load

    alias, shape = INPUTS[name]
    array = np.random.default_rng(0).random(shape, np.float32)
    model = load(name, 1, Path(path), options=RuntimeOptions())
    context = RequestContext()
    signature = model.signatures["serving_default"]
    outputs = tuple(signature.outputs)
    session = model._session.make_callable(
        [signature.outputs[output].tensor_name for output in outputs], [signature.inputs[alias].tensor_name]
    )
    ways: list[Callable[[], object]] = [
        lambda: session(array),
        lambda: model.submit(context, signature, {alias: array}, outputs),
    ]
    for line in sys.stdin:
        print(*(_median_seconds(way, int(line)) for way in ways), flush=True)


def _median_seconds(call: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


class InProcess:
    """That program, and its figures."""

    def __init__(self, name: str, path: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.server.in_process", name, str(path)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def seconds(self, calls: int) -> tuple[float, float]:
        """Median seconds of a call: of the session's callable, and of the embedded server's way."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()
        session, own = map(float, self._process.stdout.readline().split())
        return session, own

    def __enter__(self) -> InProcess:
        self.seconds(3)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    main(*sys.argv[1:])
