"""Runs a model without a server: python -m benchmarks.server.in_process NAME SAVED_MODEL

Reads a number of calls from each line of standard input, and prints the median time of a call in seconds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.server.benchmark_models import INPUTS
from benchmarks.server.servers import ROOT


def main(name: str, path: str) -> None:
    """Measure calls until standard input ends."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from benchmarks.minimal_server import load_callable  # it imports TensorFlow

    _, shape = INPUTS[name]
    array = np.random.default_rng(0).random(shape, np.float32)
    function, _, _ = load_callable(path)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            began = time.perf_counter()
            function(array)
            times.append(time.perf_counter() - began)
        print(statistics.median(times), flush=True)


class InProcess:
    """A process that runs a model, and the time of its calls."""

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

    def measure(self, calls: int) -> float:
        """Return the median time in seconds of a number of calls."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> InProcess:
        self.measure(3)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    main(*sys.argv[1:])
