"""Generates load with perf_analyzer, NVIDIA's load generator for Triton, which also calls TensorFlow Serving.

It is in the package tritonclient[perf-analyzer]==2.45.0 (PyPI). It needs libb64 (Debian: libb64-0d) and the
CUDA runtime (PyPI: nvidia-cuda-runtime-cu12, in the same environment), but no GPU.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

# It repeats windows until three differ by less than this; the caller repeats measurements anyway.
_ANY_DEVIATION_PERCENT = 10_000
_WINDOWS = 3


def run_for_seconds(
    program: Path, port: int, model: str, name: str, shape: Sequence[int], seconds: float, clients: int
) -> tuple[float, float]:
    """Send gRPC requests for some seconds; each client has a connection, and sends one request at a time.

    A process for each client: all clients of one process share a connection.

    Args:
        program: the file perf_analyzer.
        port: of the gRPC API on 127.0.0.1.
        name, shape: of the model's input, whose values are random.

    Returns:
        Requests per second, and the mean of the clients' p99 of the latency, in seconds.

    Raises:
        RuntimeError: it reports no figures.
    """
    run = partial(_run, program, port, model, name, shape)
    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(run, [seconds] * clients))
    return sum(rate for rate, _ in results), statistics.mean(p99 for _, p99 in results)


def _run(
    program: Path, port: int, model: str, name: str, shape: Sequence[int], seconds: float
) -> tuple[float, float]:
    """The same with one client."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.csv"
        command: list[str | Path] = [program, "-m", model, "--model-signature-name", "serving_default"]
        command += ["--service-kind", "tfserving", "-i", "grpc", "-u", f"127.0.0.1:{port}"]
        command += ["--shape", f"{name}:{','.join(map(str, shape))}", "--concurrency-range", "1"]
        command += ["-p", f"{seconds * 1e3 / _WINDOWS:.0f}", "-r", str(_WINDOWS), "--percentile", "99"]
        command += ["-s", str(_ANY_DEVIATION_PERCENT), "-f", report]
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, _find_cuda_runtime(program)))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode or not report.exists():
            raise RuntimeError(f"perf_analyzer failed: {done.stdout}{done.stderr}")
        with report.open() as lines:
            row = next(csv.DictReader(lines))
    return float(row["Inferences/Second"]), float(row["p99 latency"]) / 1e6


def _find_cuda_runtime(program: Path) -> list[Path]:
    """The directory of the CUDA runtime in the environment of the program."""
    return list(program.parent.parent.glob("lib/python*/site-packages/nvidia/cuda_runtime/lib"))
