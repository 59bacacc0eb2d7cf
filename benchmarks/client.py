"""What the client costs, against what one would write without it: python benchmarks/client.py

Each figure is a ratio of medians of interleaved rounds in this one run, so that a busy machine slows both
sides. Writes client.md and client.png beside this file, or to --out. Needs requirements.txt.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from tf_rpc_client import AsyncTfRpcClient, TfRpcClient  # noqa: E402
from tfserving.wire import predict, services  # noqa: E402
from tfserving.wire.model_spec import ModelSpec  # noqa: E402

SPEC = ModelSpec("m")
CALLERS = 32
SHAPES = {
    "1x10": (1, 10),
    "1x224x224x3 (600 kB)": (1, 224, 224, 3),
    "64x224x224x3 (38 MB)": (64, 224, 224, 3),
}


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int
    seconds: float  # that one side of a round takes, about
    runs: int  # of a new interpreter
    install: bool


THOROUGH = Effort(rounds=15, seconds=0.25, runs=15, install=True)
QUICK = Effort(rounds=1, seconds=0.001, runs=1, install=False)


@dataclass(frozen=True)
class Row:
    """A line of the table; ratio and limit are None where there is nothing to divide."""

    what: str
    baseline: str
    measured: str
    ratio: float | None
    limit: float | None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the ratio is on the right side of the limit."""
        if self.ratio is None or self.limit is None:
            return True
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit


def seconds_of(function: Callable[[], object], count: int) -> float:
    """Of one call, by `count` calls."""
    begin = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - begin) / count


def against(
    baseline: Callable[[], object], ours: Callable[[], object], effort: Effort
) -> tuple[float, float]:
    """Median seconds of each, taken in turn."""
    baseline(), ours()
    once = max(seconds_of(baseline, 3), 1e-7)
    count = max(1, round(effort.seconds / once))
    rounds = [(seconds_of(baseline, count), seconds_of(ours, count)) for _ in range(effort.rounds)]
    return statistics.median(one for one, _ in rounds), statistics.median(other for _, other in rounds)


def compared(
    what: str,
    baseline: str,
    times: tuple[float, float],
    limit: float,
) -> Row:
    """A row from two times in seconds."""
    theirs, ours = times
    return Row(what, baseline, f"{time_text(ours)} against {time_text(theirs)}", ours / theirs, limit)


def time_text(seconds: float) -> str:
    """Three digits and a unit."""
    unit, size = next(
        one for one in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)) if seconds >= one[1]
    )
    return f"{seconds / size:.3g} {unit}"


def start_up(effort: Effort) -> Iterator[Row]:
    """New interpreters; the minimum of their times, since only noise adds to it."""
    codes = "import grpc, numpy", "from tf_rpc_client import TfRpcClient; TfRpcClient('127.0.0.1:8500', 'm')"
    with tempfile.TemporaryDirectory() as folder:
        # compiled once, as an installed package is
        environment = os.environ | {"PYTHONPYCACHEPREFIX": folder, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def run(code: str) -> float:
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            return time.perf_counter() - begin

        for code in codes:
            run(code)
        pairs = [(run(codes[0]), run(codes[1])) for _ in range(effort.runs)]
    times = min(one for one, _ in pairs), min(other for _, other in pairs)
    yield compared("import and construct a client", f"`{codes[0]}`", times, 1.25)


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
    """A virtual environment of its own, filled from the package index."""
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
        yield compared(f"encode {name}", "`ndarray.tobytes`", times, limit)
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
        yield compared("encode 1x10", "`tf.make_tensor_proto` and serialize", times, 0.15)


def decoding(effort: Effort) -> Iterator[Row]:
    for size, limit in (("8 MB", 1.5), ("2 MB", 1.5), ("256 kB", 6.0)):
        number, unit = size.split()
        array = random((int(number) * {"MB": 2**20, "kB": 2**10}[unit] // 4 // 64, 64))
        for field, content in (("tensor_content", True), ("float_val", False)):
            data = predict.encode_response(SPEC, {"y": array}, tensor_content=content)
            times = against(array.copy, lambda data=data: predict.decode_response(data), effort)
            yield compared(f"decode {size}, `{field}`", "`ndarray.copy`", times, limit)


def calling(address: str, effort: Effort) -> Iterator[Row]:
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    for (name, shape), limit in zip(SHAPES.items(), (1.10, 1.25, 1.20), strict=True):
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
        yield compared(f"whole call, {name}", "grpcio stub, same bytes", times, limit)


def many_callers(address: str, effort: Effort) -> Iterator[Row]:
    inputs = {"x": random(SHAPES["1x10"])}
    data = predict.encode_request(SPEC, inputs)
    count = max(2, round(200 * effort.seconds))

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

    async def tasks() -> float:
        async with AsyncTfRpcClient(address, "m") as client:
            await client.infer(inputs)

            async def caller() -> None:
                for _ in range(count):
                    await client.infer(inputs)

            begin = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(CALLERS)))
            return CALLERS * count / (time.perf_counter() - begin)

    rounds = [(threads(), asyncio.run(tasks())) for _ in range(effort.rounds)]
    theirs = statistics.median(one for one, _ in rounds)
    ours = statistics.median(other for _, other in rounds)
    yield Row(
        f"calls a second, asyncio client, {CALLERS} callers",
        f"{CALLERS} threads on grpcio stubs, same bytes",
        f"{ours:,.0f} against {theirs:,.0f}",
        ours / theirs,
        1.8,
        at_least=True,
    )


def random(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random(shape, np.float32)


@contextlib.contextmanager
def server(kind: str) -> Iterator[str]:
    """The address of a canned server in a process of its own."""
    command = [sys.executable, str(HERE / "canned_server.py"), kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def measure(effort: Effort) -> Iterator[Row]:
    """All rows, those in new processes first: later this one has TensorFlow in it."""
    yield from start_up(effort)
    with server("lean") as address:
        yield from without_tensorflow(address)
        yield from many_callers(address, effort)
    if effort.install:
        yield from installed()
    with server("grpcio") as address:
        yield from calling(address, effort)
    yield from decoding(effort)
    yield from encoding(effort)


def table(rows: list[Row]) -> str:
    lines = ["| what | baseline | measured | ratio | limit |", "|---|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}{'' if row.holds else ' ✗'}"
        limit = "" if row.limit is None else f"{sign} {row.limit:g}"
        lines.append(f"| {row.what} | {row.baseline} | {row.measured} | {ratio} | {limit} |")
    return "\n".join(lines)


def page(rows: list[Row], effort: Effort) -> str:
    from tfserving import __version__

    return f"""# The client

Made by `python benchmarks/client.py`: ratios of medians of {effort.rounds} interleaved rounds in one run,
minima of {effort.runs} interpreters for the import. Version {__version__}, Python
{platform.python_version()}, grpcio {grpc.__version__}, numpy {np.__version__}, {platform.machine()},
{os.cpu_count()} cores.

{table(rows)}

The whole calls go to a server of grpcio (`grpc.aio`) that always answers the same. Calls a second are taken
on one that speaks just enough HTTP/2 to do so, since grpcio's own would be the bottleneck (see
canned_server.py).

![ratios against their limits](client.png)
"""


def plot(rows: list[Row], path: Path) -> None:
    """How much of its limit each ratio takes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row.ratio is not None and row.limit]
    used = [row.limit / row.ratio if row.at_least else row.ratio / row.limit for row in shown]
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(shown) + 1))
    axes.barh([row.what.replace("`", "") for row in shown], used, color="#4c78a8")
    axes.axvline(1, color="#e45756", linewidth=1.5)
    axes.invert_yaxis()
    axes.set_xlabel("share of the limit (line: the limit)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a moment for each: to see that it runs")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where to write (here)")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else THOROUGH
    rows = []
    for row in measure(effort):
        print(table([row]).splitlines()[-1], flush=True)
        rows.append(row)
    (arguments.out / "client.md").write_text(page(rows, effort), encoding="utf-8")
    plot(rows, arguments.out / "client.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
