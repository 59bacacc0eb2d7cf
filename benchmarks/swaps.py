"""Measure the latency of callers while versions are swapped: python -m benchmarks.swaps [--quick]

h2load generates a constant load while one version after another replaces the one before: on one embedded
server by a reload of its config, on two by `tfserving promote`. All versions have warmup records. Compares
the 99th percentile of the calls during a swap with that of the calls before it. Prints the table, and writes
swaps.md, swaps.json and swaps.png to benchmarks/ or --out. Needs requirements.txt and h2load (Debian:
nghttp2-client).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.interrupts import run_interruptible
from benchmarks.report import Row, arguments_of, time_text, write
from benchmarks.server import h2load, servers
from tf_rpc_client import TfRpcClient
from tfserving.export.warmup_requests import generate_requests
from tfserving.repository.warmup_records import write_warmup
from tfserving.wire.signatures import read_saved_model

PAGE = """# Latency during a swap of versions

`python -m benchmarks.swaps` writes this page. h2load generates the load with a constant number of callers,
each with one request at a time, while one version after another replaces the one before. All versions have
warmup records. A swap begins with the request for it, and ends when the old version is unloaded; for
`tfserving promote`, it begins and ends with the command. The baseline is the 99th percentile of the calls in
the {steady:g} s before each swap.
{machine}.

{table}

✗: the ratio exceeds its limit in this run.

The callers use all CPUs. A load needs CPU time as well, so calls take longer until it is done. `promote` and
the two servers are separate processes on the same machine.
"""

_LIMIT = 1.5
# Seconds after a swap that count neither as a part of it nor as the time before the next one.
_SETTLING = 1.5
_TIMEOUT = 120.0


@dataclass(frozen=True)
class Durations:
    """Seconds of load for each row, and of those before each swap that are the baseline."""

    load: float = 20.0
    steady: float = 3.0


_QUICK = Durations(load=8.0, steady=1.0)


@dataclass(frozen=True)
class Latencies:
    """Latencies in seconds of the calls during swaps and before them, and the number of swaps."""

    during: Sequence[float]
    steady: Sequence[float]
    swaps: int

    def row(self, what: str) -> Row:
        """Compare the 99th percentiles."""
        during, steady = (float(np.quantile(values, 0.99)) for values in (self.during, self.steady))
        counts = (
            f"{len(self.during):,} and {len(self.steady):,} calls, {self.swaps} swap{'s' * (self.swaps != 1)}"
        )
        measured = f"{time_text(during)} against {time_text(steady)}; {counts}"
        return Row(what, "p99 before the swaps", measured, during / steady, _LIMIT)


def measure_swaps(
    requests: Mapping[str, tuple[Sequence[servers.Request], int]],
    swap: Callable[[int], None],
    durations: Durations,
) -> dict[str, Latencies]:
    """Send load for some time, and swap versions as often as fits in.

    Args:
        requests: for each name, what to send at the same time, and the callers of each.
        swap: replaces the served version by the one with this number, and waits until that is done.

    Returns:
        The latencies by the names of the requests.
    """
    sent = [(name, request, count) for name, (each, count) in requests.items() for request in each]
    with ThreadPoolExecutor(len(sent)) as pool:
        end = time.time() + durations.load
        loads = [
            (name, pool.submit(h2load.run_for_seconds, request, durations.load, count))
            for name, request, count in sent
        ]
        # h2load begins with a fifth of the time as its warm-up, which it does not report
        end += 0.2 * durations.load
        time.sleep(0.2 * durations.load)
        windows: list[tuple[float, float]] = []
        longest = 0.0
        while not windows or time.time() + durations.steady + longest + _SETTLING < end:
            time.sleep(durations.steady)
            began = time.time()
            swap(len(windows) + 2)
            windows.append((began, time.time()))
            longest = max(longest, windows[-1][1] - began)
            time.sleep(_SETTLING)
        found: dict[str, list[h2load.Load]] = {}
        for name, load in loads:
            found.setdefault(name, []).append(load.result())
    return {name: split_latencies(each, windows, durations.steady) for name, each in found.items()}


def split_latencies(
    loads: Sequence[h2load.Load], windows: Sequence[tuple[float, float]], steady: float
) -> Latencies:
    """Find the calls that overlap with a swap, and those that lie in the `steady` seconds before one.

    Args:
        windows: when each swap began and ended, in seconds since the epoch.
    """
    starts = np.concatenate([load.starts for load in loads])
    latencies = np.concatenate([load.latencies for load in loads])
    during, before = (np.zeros(len(starts), bool) for _ in range(2))
    for began, ended in windows:
        during |= (starts < ended) & (starts + latencies > began)
        before |= (starts > began - steady) & (starts + latencies < began)
    return Latencies(latencies[during].tolist(), latencies[before].tolist(), len(windows))


def _publish(models: Path, model: str, directory: Path, count: int) -> Path:
    """Publish versions 1 to `count` of a model with a warmup record; return the base path."""
    source = directory / "source" / "1"
    shutil.copytree(models / model / "1", source)
    write_warmup(source, generate_requests(model, read_saved_model(source), 1, batch_sizes=(1,)))
    base_path = directory / "models" / model
    for version in range(1, count + 1):
        servers.publish_linked(source, base_path, version)
    return base_path


def _config(model: str, base_path: Path | str, version: int) -> str:
    return (
        f'model_config_list {{ config {{ name: "{model}" base_path: "{base_path}" '
        'model_platform: "tensorflow" '
        f"model_version_policy {{ specific {{ versions: {version} }} }} }} }}\n"
    )


def one_server(
    models: Path, directory: Path, durations: Durations, cases: Sequence[tuple[str, str, int]]
) -> Iterator[Row]:
    """Rows for an embedded server whose config is reloaded, by model, API and number of callers."""
    for model, api, callers in cases:
        place = directory / f"{model}-{api}"
        base_path = _publish(models, model, place, 100)
        config = place / "models.config"
        config.write_text(_config(model, base_path, 1))
        with servers.embedded(f"--model_config_file={config}") as server:
            make = servers.grpc_request if api == "gRPC" else servers.rest_request
            request = make(server, model, place)
            with TfRpcClient(f"127.0.0.1:{server.grpc_port}", model, timeout=_TIMEOUT) as client:

                def swap(version: int) -> None:
                    client.reload_config(_config(model, base_path, version))  # noqa: B023
                    server.wait_until_serving(model, version)  # noqa: B023

                found = measure_swaps({api: ([request], callers)}, swap, durations)
        yield found[api].row(f"p99 during a swap, {model}, {api}, {callers} callers")


def two_servers(models: Path, directory: Path, durations: Durations) -> Iterator[Row]:
    """Rows for `tfserving promote` on two embedded servers, with 8 callers over gRPC and 8 over REST."""
    model = "trivial"
    place = directory / "promote"
    base_path = _publish(models, model, place, 40)
    config = base_path.parent / "models.config"
    config.write_text(_config(model, f"/models/{model}", 1))
    flags = (f"--model_config_file={config}", f"--models_dir={base_path.parent}")
    with ExitStack() as stack:
        pair = [stack.enter_context(servers.embedded(*flags)) for _ in range(2)]
        requests = {
            "gRPC": ([servers.grpc_request(server, model, place) for server in pair], 4),
            "REST": ([servers.rest_request(server, model, place) for server in pair], 4),
        }
        addresses = ",".join(f"127.0.0.1:{server.grpc_port}" for server in pair)

        def promote(version: int) -> None:
            command = [sys.executable, "-m", "tfserving", "promote", model, str(version)]
            command += [f"--server={addresses}", f"--config={config}", f"--models-dir={base_path.parent}"]
            subprocess.run(command, cwd=servers.ROOT, check=True, capture_output=True)

        for api, latencies in measure_swaps(requests, promote, durations).items():
            yield latencies.row(
                f"p99 during `tfserving promote` on two servers, {model}, 8 callers over each API: {api}"
            )


CASES = (("trivial", "gRPC", 8), ("trivial", "REST", 8), ("dense", "gRPC", 8), ("mobilenet", "gRPC", 4))


def main() -> int:
    """Run the command; see --help."""
    arguments = arguments_of("benchmarks.swaps", __doc__)
    durations = _QUICK if arguments.quick else Durations()
    write(arguments.out / "swaps", PAGE, _measure(durations, arguments.quick), {"steady": durations.steady})
    return 0


def _measure(durations: Durations, quick: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        models = directory / "exported"
        command = [sys.executable, "-m", "benchmarks.server.benchmark_models", str(models)]
        subprocess.run(command, cwd=servers.ROOT, check=True, capture_output=True)
        yield from one_server(models, directory, durations, CASES[:1] if quick else CASES)
        yield from two_servers(models, directory, durations)


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
