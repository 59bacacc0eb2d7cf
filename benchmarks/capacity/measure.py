"""Measures service times, and latencies of 1, 2 and 4 embedded servers under a given load.

Writes JSON: python -m benchmarks.capacity.measure [--quick] FILE

The servers under load run a model that waits instead of using the CPU, so that this machine's cores do not
limit them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.capacity.simulation import percentile
from benchmarks.interrupts import run_interruptible
from benchmarks.server.servers import ROOT, embedded
from tfserving.client import AsyncTfRpcClient, Retry

COUNTS = (1, 2, 4)
LOADS = (0.5, 0.7, 0.85)
# Long beside the delays that other processes on this machine cause.
WAIT_SECONDS = 0.1
# One call at a time.
_FLAGS = ("--grpc_max_threads=1", "--tensorflow_intra_op_parallelism=1")
# Calls that wait at each server while its throughput is measured.
_CALLERS = 8

Call = Callable[[], Awaitable[None]]


def export_waiting_model(directory: Path, seconds: float) -> None:
    """Export "wait" as DIR/wait/1: y = x after some seconds without use of the CPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow as tf
    from tensorflow.python.data.experimental.ops import testing

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    def wait(x):
        # It also waits before it reports that there is no second element.
        dataset = tf.data.Dataset.range(1).apply(testing.sleep(round(seconds / 2 * 1e6)))
        zero = dataset.reduce(tf.constant(0, tf.int64), lambda total, _: total)
        return {"y": x + tf.cast(zero, tf.float32)}

    module = tf.Module()
    module.wait = wait
    tf.saved_model.save(module, str(directory / "wait" / "1"), signatures={"serving_default": wait})


def run(quick: bool) -> dict[str, Any]:
    """Export the models and measure; return JSON values, with times in seconds."""
    with tempfile.TemporaryDirectory() as models:
        command = [sys.executable, "-m", "benchmarks.capacity.measure", "--export", models]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        amount = (20, COUNTS[:2], LOADS[:1]) if quick else (300, COUNTS, LOADS)
        return asyncio.run(measure(Path(models), *amount))


async def measure(models: Path, calls: int, counts: Sequence[int], loads: Sequence[float]) -> dict[str, Any]:
    """Measure with this number of calls for each row."""
    found: dict[str, Any] = {"machine": _describe_machine(), "runs": []}
    with _servers(models, 1) as address:
        found["service_times"] = await measure_sequential(address, calls // 2)
    for count in counts:
        with _servers(models, count) as addresses:
            throughput = await measure_throughput(addresses, calls, _CALLERS * count)
            for load in loads:
                row = {"servers": count, "load": load, "calls": calls, "rate": round(load * throughput, 3)}
                latencies = await measure_open_loop(addresses, calls, row["rate"])
                tails = {f"p{percent}": round(percentile(latencies, percent), 5) for percent in (50, 90, 99)}
                found["runs"].append({**row, "throughput": round(throughput, 3), **tails})
                print(found["runs"][-1], flush=True)
    return found


async def measure_sequential(addresses: str, calls: int) -> list[float]:
    """Return the latencies in seconds of calls one after another, ascending."""
    async with _client(addresses) as call:
        return sorted([round(await _time(call, time.perf_counter()), 5) for _ in range(calls)])


async def measure_throughput(addresses: str, calls: int, callers: int) -> float:
    """Return the calls per second of callers that call again as soon as they have a response."""
    left = iter(range(calls))

    async def call_repeatedly() -> None:
        for _ in left:
            await call()

    async with _client(addresses) as call:
        began = time.perf_counter()
        await asyncio.gather(*(call_repeatedly() for _ in range(callers)))
        return calls / (time.perf_counter() - began)


async def measure_open_loop(addresses: str, calls: int, rate: float) -> list[float]:
    """Return the latencies in seconds, ascending, of calls that begin at random times.

    A latency includes the time by which a call begins late.

    Args:
        rate: calls per second on average.
    """
    rng = random.Random(0)
    tasks = []
    async with _client(addresses) as call:
        due = time.perf_counter()
        for _ in range(calls):
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(_time(call, due)))
        return sorted(await asyncio.gather(*tasks))


async def _time(call: Call, since: float) -> float:
    await call()
    return time.perf_counter() - since


@contextlib.asynccontextmanager
async def _client(addresses: str) -> AsyncIterator[Call]:
    async with AsyncTfRpcClient(addresses, "wait", retry=Retry(attempts=1)) as client:

        async def call() -> None:
            await client.infer([1.0])

        for _ in range(20):  # opens every connection
            await call()
        yield call


@contextlib.contextmanager
def _servers(models: Path, count: int) -> Iterator[str]:
    """Run servers; yield their addresses as one list."""
    with contextlib.ExitStack() as stack:
        flags = ("--model_name=wait", f"--model_base_path={models / 'wait'}", *_FLAGS)
        servers = [stack.enter_context(embedded(*flags)) for _ in range(count)]
        yield ",".join(f"127.0.0.1:{server.grpc_port}" for server in servers)


def _describe_machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load average at the start": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(prog="benchmarks.capacity.measure", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write")
    parser.add_argument("--quick", action="store_true", help="measure briefly, only to check that it runs")
    parser.add_argument(
        "--export", action="store_true", help="export the model to the directory FILE instead"
    )
    arguments = parser.parse_args()
    if arguments.export:
        export_waiting_model(arguments.file, WAIT_SECONDS)
    else:
        found = run(arguments.quick)
        arguments.file.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
