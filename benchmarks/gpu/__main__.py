"""Compare settings on a GPU: python -m benchmarks.gpu [--cpu] [--json FILE] [CONFIGURATION ...]

Measures a ResNet50 and a MobileNetV2 on the embedded server: plain, with batching, with XLA
auto-clustering, with both, and without the GPU; requests with pixels and with JPEG files. Takes less than
five minutes: a configuration for which no time is left is omitted. Needs requirements.txt, CUDA
(pip install 'tensorflow[and-cuda]') and nvidia-smi. --cpu only checks that the script runs: small models
without a GPU, in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gpu.models import BATCH_SIZES
from benchmarks.interrupts import run_interruptible
from benchmarks.server import servers
from tfserving.bench.load_results import format_rate, format_seconds
from tfserving.bench.measurement import LevelResult, LoadLevel, MeasurementOptions, measure
from tfserving.bench.targets import resolve_targets
from tfserving.bench.workload import WorkloadFactory
from tfserving.client import TfRpcClient
from tfserving.wire.model_spec import ModelSpec

# Seconds in which all configurations must be done.
_BUDGET = 300.0

_XLA = ("--xla_gpu_compilation_enabled", "--xla_auto_jit")
_BATCHING = f"""max_batch_size {{ value: {max(BATCH_SIZES)} }}
batch_timeout_micros {{ value: 2000 }}
num_batch_threads {{ value: 4 }}
max_enqueued_batches {{ value: 1000 }}
{" ".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES)}
"""


@dataclass(frozen=True)
class Load:
    """Requests of one image each: pixels, or a JPEG file."""

    model: str
    callers: int
    is_jpeg: bool = False


@dataclass(frozen=True)
class Configuration:
    """Flags of the server, and the loads to measure with them."""

    flags: tuple[str, ...]
    loads: tuple[Load, ...]
    uses_gpu: bool = True


_SINGLE = (Load("resnet50", 1), Load("resnet50", 16), Load("mobilenet", 16))
_MANY = (Load("resnet50", 128), Load("resnet50", 128, is_jpeg=True), Load("mobilenet", 128))
# By importance, in case that the time is too short.
CONFIGURATIONS = {
    "plain": Configuration((), _SINGLE),
    "batching": Configuration(("--enable_batching",), _MANY),
    "xla": Configuration(_XLA, _SINGLE),
    "batching+xla": Configuration(("--enable_batching", *_XLA), _MANY),
    "cpu": Configuration((), _SINGLE[1:], uses_gpu=False),
}


@dataclass(frozen=True)
class Measured:
    """A row of the report."""

    configuration: str
    load: Load
    request_bytes: int
    result: LevelResult


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("configurations", nargs="*", metavar="CONFIGURATION", help=", ".join(CONFIGURATIONS))
    parser.add_argument(
        "--cpu", action="store_true", help="small models without a GPU: checks the script only"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.configurations if name not in CONFIGURATIONS]
    if unknown:
        parser.error(f"{unknown[0]!r} is not a configuration ({', '.join(CONFIGURATIONS)})")
    device = "no GPU: these figures only show that the script runs"
    if not arguments.cpu:
        try:
            device = _find_gpu()
        except OSError as error:
            print(
                f"benchmarks.gpu needs an NVIDIA GPU: {error}; run it on a machine with one, or use --cpu to "
                "check that the script runs",
                file=sys.stderr,
            )
            return 1
    print(f"{device}; {os.cpu_count()} CPUs\n", flush=True)
    measured: list[Measured] = []
    print(_line("configuration", "model", "request", "callers", "calls/s", "p50", "p99", "against plain"))
    print("|" + "---|" * 8)
    for row in _measure(arguments.configurations or list(CONFIGURATIONS), is_cpu=arguments.cpu):
        measured.append(row)
        print(_row(row, measured), flush=True)
        if row.result.refused:
            print(f"refused: {row.result.refused}", file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps([_as_json(row) for row in measured], indent=1) + "\n", "utf-8")
    return 0


def _find_gpu() -> str:
    """The GPUs that nvidia-smi lists; raises OSError with the reason if there is none."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except FileNotFoundError as error:
        raise OSError("nvidia-smi is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise OSError("nvidia-smi -L did not respond within 30 s") from error
    found = [line.split(" (")[0] for line in done.stdout.splitlines() if line.startswith("GPU ")]
    if not found:
        raise OSError(f"nvidia-smi -L reports: {(done.stderr or done.stdout).strip()}")
    return ", ".join(found)


def _measure(names: Sequence[str], *, is_cpu: bool) -> Iterator[Measured]:
    began, longest = time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        command = [sys.executable, "-m", "benchmarks.gpu.models", temporary, *["--tiny"] * is_cpu]
        subprocess.run(command, cwd=servers.ROOT, check=True, stdout=subprocess.DEVNULL)
        (directory / "batching").write_text(_BATCHING)
        (directory / "models.config").write_text(_models_config(directory))
        for name in names:
            start = time.monotonic()
            if start - began + longest > _BUDGET:
                print(f"{name} is omitted: it could take longer than {_BUDGET:g} s in all", file=sys.stderr)
                continue
            yield from _measure_configuration(name, directory, is_cpu=is_cpu)
            longest = max(longest, time.monotonic() - start)


def _measure_configuration(name: str, directory: Path, *, is_cpu: bool) -> Iterator[Measured]:
    configuration = CONFIGURATIONS[name]
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0") if configuration.uses_gpu and not is_cpu else "-1"
    flags = [f"--model_config_file={directory / 'models.config'}", *configuration.flags]
    if "--enable_batching" in flags:
        flags.append(f"--batching_parameters_file={directory / 'batching'}")
    options = MeasurementOptions(warmup=1.0, duration=4.0)
    if is_cpu:
        options = MeasurementOptions(warmup=0.1, duration=0.5)
    with servers.embedded(*flags, environment={"CUDA_VISIBLE_DEVICES": gpu}, log=directory / "log") as server:
        for load in configuration.loads:
            callers = min(load.callers, 4) if is_cpu else load.callers
            request = _make_request(server, load, directory)
            targets = resolve_targets(_address(server), is_grpc=True, tls=None, headers=())
            level = LoadLevel(concurrency=callers)
            result = measure(targets, True, [request], level, options)
            yield Measured(name, load, len(request[1]), result)


def _make_request(server: servers.Server, load: Load, directory: Path) -> tuple[str, bytes]:
    """The gRPC method, and the message."""
    signature = "image_bytes" if load.is_jpeg else ""
    with TfRpcClient(_address(server), load.model) as client:
        factory = WorkloadFactory(ModelSpec(load.model, signature=signature), client.metadata(), is_grpc=True)
    if load.is_jpeg:
        images = np.array([(directory / "image.jpg").read_bytes()], object)
        workload = factory.from_arrays({"image_bytes": images}, None, "image.jpg")
    else:
        workload = factory.from_signature({}, None)
    return workload.requests[0].path, workload.requests[0].body


def _address(server: servers.Server) -> str:
    return f"127.0.0.1:{server.grpc_port}"


def _models_config(directory: Path) -> str:
    models = "".join(
        f'config {{ name: "{name}" base_path: "{directory / name}" model_platform: "tensorflow" }}\n'
        for name in ("resnet50", "mobilenet")
    )
    return f"model_config_list {{\n{models}}}\n"


def _row(row: Measured, measured: Sequence[Measured]) -> str:
    """A row of the table; the last column compares it with the plain server and 16 callers."""
    load, result = row.load, row.result
    request = f"{'JPEG' if load.is_jpeg else 'pixels'}, {row.request_bytes / 1000:,.0f} kB"
    cells = [row.configuration, load.model, request, str(result.level.concurrency)]
    if result.refused:
        return _line(*cells, "refused", "", "", "")
    base = [
        each.result.rate
        for each in measured
        if each.configuration == "plain" and each.load == Load(load.model, 16) and not each.result.refused
    ]
    against = f"{result.rate / base[0]:.2f}" if base and base[0] else ""
    times = (format_seconds(result.quantile(0.5)), format_seconds(result.quantile(0.99)))
    return _line(*cells, format_rate(result.rate), *times, against)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _as_json(row: Measured) -> dict[str, object]:
    result = row.result
    figures = {"rate": result.rate, "p50": result.quantile(0.5), "p99": result.quantile(0.99)}
    return {
        "configuration": row.configuration,
        "model": row.load.model,
        "is_jpeg": row.load.is_jpeg,
        "request_bytes": row.request_bytes,
        "callers": result.level.concurrency,
        "refused": result.refused or None,
        "errors": dict(result.errors),
        **({} if result.refused else figures),
    }


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
