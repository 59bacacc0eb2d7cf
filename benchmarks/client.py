"""The client's cost compared with plain gRPC: python -m benchmarks.client [--quick]

Each figure is a ratio of medians of interleaved rounds in one run, so that a busy machine slows down both
sides. Writes client.md, client.json and client.png beside this file, or to --out. Needs requirements.txt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from benchmarks.interrupts import run_interruptible
from benchmarks.report import Row, arguments_of, compared, write
from tf_rpc_client import AsyncTfRpcClient, TfRpcClient
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec

ROOT = Path(__file__).parents[1]

SPEC = ModelSpec("m")
CALLERS = 32
SHAPES = {
    "1x10": (1, 10),
    "1x224x224x3 (600 kB)": (1, 224, 224, 3),
    "64x224x224x3 (38 MB)": (64, 224, 224, 3),
}


@dataclass(frozen=True)
class Effort:
    """How long to measure: `seconds` per side of a round, `runs` of a new interpreter."""

    rounds: int
    seconds: float
    runs: int
    install: bool


THOROUGH = Effort(rounds=51, seconds=0.06, runs=15, install=True)
QUICK = Effort(rounds=1, seconds=0.001, runs=1, install=False)


def seconds_of(function: Callable[[], object], count: int) -> float:
    """Seconds per call, over `count` calls."""
    begin = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - begin) / count


def against(
    baseline: Callable[[], object], ours: Callable[[], object], effort: Effort
) -> tuple[float, float]:
    """Median seconds of our call and of the baseline, measured alternately."""
    baseline(), ours()
    once = max(seconds_of(baseline, 3), 1e-7)
    count = max(1, round(effort.seconds / once))
    rounds = [(seconds_of(baseline, count), seconds_of(ours, count)) for _ in range(effort.rounds)]
    return statistics.median(other for _, other in rounds), statistics.median(one for one, _ in rounds)


def start_up(effort: Effort) -> Iterator[Row]:
    """Start-up of new interpreters; the minimum of the times, since noise only adds to them."""
    codes = "import grpc, numpy", "from tf_rpc_client import TfRpcClient; TfRpcClient('127.0.0.1:8500', 'm')"
    with tempfile.TemporaryDirectory() as folder:
        # compiled once, like an installed package
        environment = os.environ | {"PYTHONPYCACHEPREFIX": folder, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def run(code: str) -> float:
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            return time.perf_counter() - begin

        for code in codes:
            run(code)
        pairs = [(run(codes[0]), run(codes[1])) for _ in range(effort.runs)]
    times = min(other for _, other in pairs), min(one for one, _ in pairs)
    yield compared("import and construct a client", f"`{codes[0]}`", *times, 1.25)


def without_tensorflow(address: str) -> Iterator[Row]:
    code = f"""
import sys
from tf_rpc_client import TfRpcClient
with TfRpcClient({address!r}, "m") as client:
    client.infer([1.0])
print("tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()
    yield Row("`tensorflow` in `sys.modules` after a call", "never", done, float(done == "True"), 0.0)


def installed() -> Iterator[Row]:
    """The size of a new virtual environment with the package installed."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", str(ROOT)]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
        others = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
        size = sum(
            file.stat().st_blocks * 512
            for file in Path(folder).rglob("*")
            if file.is_file()
            and not file.is_symlink()
            and not any(part.startswith(others) for part in file.parts)
        )
    yield Row("base install", "115 MB", f"{size / 2**20:.0f} MB", size / 2**20 / 115, 1.0)


def encoding(effort: Effort) -> Iterator[Row]:
    write = predict.RequestWriter(SPEC).write
    for name, limit in (("64x224x224x3 (38 MB)", 1.2), ("1x224x224x3 (600 kB)", 1.5)):
        array = random(SHAPES[name])
        inputs = {"x": array}
        times = against(array.tobytes, lambda inputs=inputs: write(inputs), effort)
        yield compared(f"encode {name}", "`ndarray.tobytes`", *times, limit)
    with contextlib.suppress(ImportError):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        array = random(SHAPES["1x10"])

        def official() -> bytes:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "m"
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(array))
            return bytes(request.SerializeToString())

        times = against(official, lambda: write({"x": array}), effort)
        yield compared("encode 1x10", "`tf.make_tensor_proto` and serialize", *times, 0.15)


def decoding(effort: Effort) -> Iterator[Row]:
    for size, limit in (("8 MB", 1.5), ("2 MB", 1.5), ("256 kB", 6.0)):
        number, unit = size.split()
        array = random((int(number) * {"MB": 2**20, "kB": 2**10}[unit] // 4 // 64, 64))
        for field, content in (("tensor_content", True), ("float_val", False)):
            data = predict.encode_response(SPEC, {"y": array}, tensor_content=content)
            times = against(array.copy, lambda data=data: predict.decode_response(data), effort)
            yield compared(f"decode {size}, `{field}`", "`ndarray.copy`", *times, limit)


def calling(address: str, effort: Effort, limits: Sequence[float | None], where: str = "") -> Iterator[Row]:
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    for (name, shape), limit in zip(SHAPES.items(), limits, strict=True):
        inputs = {"x": random(shape)}
        data = predict.encode_request(SPEC, inputs)
        with (
            grpc.insecure_channel(address, options=own) as channel,
            TfRpcClient(address, "m", channel_options=own) as client,
        ):
            stub = channel.unary_unary(services.PREDICT.path)
            times = against(
                lambda stub=stub, data=data: stub(data, timeout=60),
                lambda client=client, inputs=inputs: client.infer(inputs),
                effort,
            )
        yield compared(f"whole call, {name}{where}", "grpcio stub, same bytes", *times, limit)


def many_callers(address: str, effort: Effort, limit: float | None, where: str = "") -> Iterator[Row]:
    """The asyncio client; and stubs of grpc.aio without it, the upper limit."""
    inputs = {"x": random(SHAPES["1x10"])}
    data = predict.encode_request(SPEC, inputs)
    count = max(2, round(800 * effort.seconds))

    def threads() -> float:
        with grpc.insecure_channel(address) as channel:
            stub = channel.unary_unary(services.PREDICT.path)
            stub(data)

            def caller() -> None:
                for _ in range(count):
                    stub(data, timeout=60)

            all_callers = [threading.Thread(target=caller) for _ in range(CALLERS)]
            begin = time.perf_counter()
            for thread in all_callers:
                thread.start()
            for thread in all_callers:
                thread.join()
            return CALLERS * count / (time.perf_counter() - begin)

    async def tasks(call: Callable[[], Awaitable[object]]) -> float:
        await call()

        async def caller() -> None:
            for _ in range(count):
                await call()

        begin = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return CALLERS * count / (time.perf_counter() - begin)

    async def stubs() -> float:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = channel.unary_unary(services.PREDICT.path)
            return await tasks(lambda: stub(data, timeout=60))

    async def ours() -> float:
        async with AsyncTfRpcClient(address, "m") as client:
            return await tasks(lambda: client.infer(inputs))

    rounds = [(threads(), asyncio.run(stubs()), asyncio.run(ours())) for _ in range(effort.rounds)]
    baseline, upper, rate = map(statistics.median, zip(*rounds, strict=True))
    for what, measured, holds in (("asyncio client", rate, limit), ("stubs of `grpc.aio`", upper, None)):
        yield Row(
            f"calls a second, {what}, {CALLERS} callers{where}",
            f"{CALLERS} threads on grpcio stubs, same bytes",
            f"{measured:,.0f} against {baseline:,.0f}",
            measured / baseline,
            holds,
            at_least=True,
        )


def random(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random(shape, np.float32)


@contextlib.contextmanager
def server(kind: str) -> Iterator[str]:
    """The address of a canned server in another process."""
    command = [sys.executable, "-m", "benchmarks.canned_server", kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def measure(effort: Effort) -> Iterator[Row]:
    """All rows; those in new processes come first, before this process imports TensorFlow."""
    lean, grpcio = "; lean server", "; grpcio's server"
    yield from start_up(effort)
    with server("lean") as address:
        yield from without_tensorflow(address)
        yield from many_callers(address, effort, 1.8)
    with server("grpcio") as address:
        yield from many_callers(address, effort, None, grpcio)
        yield from calling(address, effort, (1.10, 1.25, 1.20))
    with server("lean") as address:
        yield from calling(address, effort, (None, None, None), lean)
    if effort.install:
        yield from installed()
    yield from decoding(effort)
    yield from encoding(effort)


PAGE = """# The client

Written by `python -m benchmarks.client`: ratios of medians of {rounds} interleaved rounds in one run; for the
import, minima of {runs} interpreters. {machine}.

{table}

Whole calls go to a grpcio server (`grpc.aio`) that always sends the same response. For calls per second it
would be the bottleneck: even the stubs of `grpc.aio` make few more calls to it than threads do. So these go
to a lean server with just enough HTTP/2 for a response ([canned_server.py](canned_server.py)). Each row is
also measured, without a limit, on the other server.

![ratios against their limits](client.png)
"""


def main() -> int:
    """Run the command; see --help."""
    arguments = arguments_of("benchmarks.client", __doc__)
    effort = QUICK if arguments.quick else THOROUGH
    facts = {"rounds": effort.rounds, "runs": effort.runs}
    write(arguments.out / "client", PAGE, measure(effort), facts)
    return 0


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
