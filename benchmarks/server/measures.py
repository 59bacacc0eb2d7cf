"""What is measured. Everything that is compared is measured in turn, round after round, in one run."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.report import Row, compared, time_text
from benchmarks.server import load, servers
from benchmarks.server.delays import Asker, SlowCalls, alone
from benchmarks.server.in_process import InProcess
from benchmarks.server.models import INPUTS
from tfserving.repository.config import ModelConfig, ServerConfig, to_text
from tfserving.repository.warmup_records import write_warmup
from tfserving.wire import predict
from tfserving.wire.model_spec import ModelSpec


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: of everything that is compared.
        seconds: of load, for each server of a round.
        calls: one after the other, where it is the time of a call that counts.
        swaps: first and last one of those between which memory is compared.
    """

    rounds: int = 5
    seconds: float = 2.0
    calls: int = 40
    swaps: tuple[int, int] = (20, 60)


QUICK = Effort(rounds=1, seconds=0.2, calls=4, swaps=(1, 3))

# Seconds after which an unloaded version has left memory: its garbage is collected a second later.
_SETTLED = 1.5


def throughput(models: Path, directory: Path, effort: Effort) -> Iterator[Row]:
    """Calls per second of a model that does nothing, against the naive server and the bare transport."""
    with ExitStack() as stack:
        running = {
            "embedded": stack.enter_context(servers.embedded(*_serving("trivial", models))),
            "naive": stack.enter_context(servers.naive(models / "trivial" / "1")),
            "bare": stack.enter_context(servers.bare()),
        }
        requests = {
            name: servers.grpc_request(server, "trivial", directory) for name, server in running.items()
        }
        requests["REST"] = servers.rest_request(running["embedded"], "trivial", directory)
        for callers in (8, 1):
            rates = _rates(requests, callers, effort)
            what = f"calls a second, trivial model, {callers} caller{'s' * (callers > 1)}"
            for name, baseline, limit in (
                ("naive", "naive server (`benchmarks/naive_server.py`)", 1.3 if callers == 8 else None),
                ("bare", "empty `grpc.aio` handler (`benchmarks/bare_server.py`)", None),
            ):
                ratio = rates["embedded"] / rates[name]
                measured = f"{rates['embedded']:,.0f} against {rates[name]:,.0f}"
                yield Row(what, baseline, measured, ratio, limit, at_least=True)
            ratio = rates["REST"] / rates["embedded"]
            yield Row(
                f"{what}, REST", "gRPC", f"{rates['REST']:,.0f} against {rates['embedded']:,.0f}", ratio
            )


def overhead(models: Path, directory: Path, effort: Effort) -> Iterator[Row]:
    """The time of a call of a MobileNetV2, without a server, over gRPC, over REST.

    And what others take for the same: the naive server, and the bare transport, which does not call it but is
    busy for as long. Twice the rounds: a machine's speed can waver by more than these differences.
    """
    with ExitStack() as stack:
        embedded = stack.enter_context(servers.embedded(*_serving("mobilenet", models)))
        naive = stack.enter_context(servers.naive(models / "mobilenet" / "1"))
        in_process = stack.enter_context(InProcess("mobilenet", models / "mobilenet" / "1"))
        busy = min(in_process.seconds(effort.calls))
        bare = stack.enter_context(servers.bare(busy))
        requests = {
            "gRPC": servers.grpc_request(embedded, "mobilenet", directory),
            "naive": servers.grpc_request(naive, "mobilenet", directory),
            "bare": servers.grpc_request(bare, "mobilenet", directory),
            "REST": servers.rest_request(embedded, "mobilenet", directory),
            "REST, float32 digits": servers.rest_request(embedded, "mobilenet", directory, short=True),
        }
        load.for_calls(requests["gRPC"], 3)

        def median(request: servers.Request) -> float:
            return statistics.median(load.for_calls(request, effort.calls).seconds)

        measures: dict[str, Callable[[], float]] = {
            "in process": lambda: min(in_process.seconds(effort.calls))
        }
        measures |= {name: partial(median, request) for name, request in requests.items()}
        times = _in_turn(measures, 2 * effort.rounds)
    alone = times["in process"]
    yield compared("a call of a MobileNetV2, gRPC", "in process", times["gRPC"], alone, 1.08)
    yield compared("the same, naive server", "in process", times["naive"], alone)
    transport = times["bare"] - busy
    yield compared("the bare transport of the same 600 kB, alone", "in process", transport, alone)
    for name, limit in (("REST", 1.5), ("REST, float32 digits", None)):
        size = requests[name].body.stat().st_size / 1e6
        what = f"a call of a MobileNetV2, {name}, {size:.1f} MB of JSON"
        yield compared(what, "gRPC", times[name], times["gRPC"], limit)


def batching(models: Path, directory: Path, effort: Effort) -> Iterator[Row]:
    """Calls per second of a model whose weights take longer to read than its rows to multiply."""
    parameters = directory / "batching.config"
    parameters.write_text("max_batch_size { value: 16 }\nnum_batch_threads { value: 2 }\n")
    flags = ("--enable_batching=true", f"--batching_parameters_file={parameters}")
    serving = (*_serving("dense", models), "--grpc_max_threads=64")
    with servers.embedded(*serving, *flags) as on, servers.embedded(*serving) as off:
        what = "calls a second with batching, 4096x4096 matrix"
        yield _faster(what, "without batching", (on, off), "dense", 16, directory, effort, limit=1.5)


def parallelism(models: Path, directory: Path, effort: Effort) -> Iterator[Row]:
    """Calls per second of a MobileNetV2 whose operations run on one CPU each, rather than on all of them."""
    serving = _serving("mobilenet", models)
    one_cpu = "--tensorflow_intra_op_parallelism=1"
    with servers.embedded(*serving, one_cpu) as one, servers.embedded(*serving) as every:
        for callers in (1, 4):
            what = f"calls a second of a MobileNetV2, {one_cpu}"
            yield _faster(what, "all CPUs", (one, every), "mobilenet", callers, directory, effort)


def first_calls(models: Path, directory: Path, effort: Effort) -> Iterator[Row]:
    """The first call after a start, and after a swap, of a model with warmup records; against the median."""
    ratios: dict[str, list[float]] = {"start": [], "swap": []}
    firsts: dict[str, list[float]] = {"start": [], "swap": []}
    source = directory / "warm" / "1"
    shutil.copytree(models / "mobilenet" / "1", source)
    name, shape = INPUTS["mobilenet"]
    write_warmup(
        source, [predict.encode_request(ModelSpec("mobilenet"), {name: np.zeros(shape, np.float32)})] * 2
    )
    with servers.embedded(*_serving("mobilenet", models)) as server:
        # the request is made with another server, so that the call that is measured is the first
        request = servers.grpc_request(server, "mobilenet", directory)
    for number in range(effort.rounds):
        base_path = directory / f"first-{number}"
        _publish(source, base_path, 1)
        with servers.embedded("--model_name=mobilenet", f"--model_base_path={base_path}") as server:
            url = request.url.replace(request.url.split("/")[2], f"127.0.0.1:{server.grpc_port}")
            here = servers.Request(url, request.headers, request.body, request.http1, request.answer)
            for what in ("start", "swap"):
                if what == "swap":
                    _publish(source, base_path, 2)
                    server.wait_until_serving("mobilenet", 2)
                seconds = load.for_calls(here, effort.calls).seconds
                firsts[what].append(seconds[0])
                ratios[what].append(seconds[0] / statistics.median(seconds))
    for what in ("start", "swap"):
        ratio = statistics.median(ratios[what])
        first = statistics.median(firsts[what])
        measured = f"{time_text(first)} against {time_text(first / ratio)}"
        yield Row(f"first call after a {what}, MobileNetV2 with warmup", "median call", measured, ratio, 1.5)


def memory(models: Path, directory: Path, effort: Effort) -> Iterator[Row]:
    """What the server holds while versions of a MobileNetV2 are swapped."""
    base_path = directory / "swapped"
    source = models / "mobilenet" / "1"
    begin, end = effort.swaps
    _publish(source, base_path, 1)
    holds = []
    with servers.embedded("--model_name=mobilenet", f"--model_base_path={base_path}") as server:
        request = servers.grpc_request(server, "mobilenet", directory)
        for swap in range(1, end + 1):
            _publish(source, base_path, swap + 1)
            server.wait_until_serving("mobilenet", swap + 1)
            shutil.rmtree(base_path / str(swap))
            load.for_calls(request, 2)
            time.sleep(_SETTLED)
            holds.append(_held(server.process.pid))
    swaps = np.arange(begin, end + 1)
    resident, threads, files = np.array(holds[begin - 1 :]).T.tolist()
    slope = float(np.polyfit(swaps, resident, 1)[0])
    measured = f"{resident[0]:.0f} MB to {resident[-1]:.0f} MB, {slope:+.2f} MB a swap"
    yield Row(f"memory, swaps {begin} to {end} of a MobileNetV2", "1 MB a swap", measured, slope, 1.0)
    for what, counts in (("threads", threads), ("files and sockets", files)):
        measured = f"{counts[0]:.0f} to {counts[-1]:.0f}"
        yield Row(f"{what}, the same swaps", "as many", measured, counts[-1] / counts[0], 1.0)


def delays(models: Path, directory: Path, effort: Effort) -> Iterator[Row]:
    """What other calls notice of a model that takes a second a call, with more callers than threads."""
    config = directory / "slow.config"
    config.write_text(
        to_text(ServerConfig(tuple(ModelConfig(name, str(models / name)) for name in ("slow", "trivial"))))
    )
    threads, callers = 4, 8
    flags = (
        f"--model_config_file={config}",
        f"--grpc_max_threads={threads}",
        "--enable_grpc_healthcheck_service",
    )
    seconds = 4 * effort.seconds
    quiet: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    with servers.embedded(*flags) as server, Asker(server) as asker:
        asker.ask(min(seconds, 1.0))
        slow = alone(server)
        for _ in range(effort.rounds):
            for took, callers_now in ((quiet, 0), (busy, callers)):
                with SlowCalls(server, callers_now):
                    time.sleep(min(seconds, 0.5))
                    for name, times in asker.ask(seconds).items():
                        took.setdefault(name, []).extend(times)
    for name, times in busy.items():
        usual = statistics.median(quiet[name])
        worst = max(times) - usual
        measured = (
            f"median {time_text(statistics.median(times))}, 99 of 100 {time_text(np.quantile(times, 0.99))}, "
            f"longest {time_text(max(times))}; alone {time_text(usual)}"
        )
        what = f"longest delay by a model of {slow:.1f} s, {callers} callers, {threads} threads: {name}"
        yield Row(what, "50 ms", measured, worst / 0.05, 1.0)


def _rates(requests: dict[str, servers.Request], callers: int, effort: Effort) -> dict[str, float]:
    """Calls per second of each, measured in turn."""
    measures = {
        name: partial(load.for_seconds, request, effort.seconds, callers)
        for name, request in requests.items()
    }
    return _in_turn({name: lambda run=run: run().rate for name, run in measures.items()}, effort.rounds)


def _faster(
    what: str,
    baseline: str,
    pair: tuple[servers.Server, servers.Server],
    model: str,
    callers: int,
    directory: Path,
    effort: Effort,
    limit: float | None = None,
) -> Row:
    """A row for calls per second of the first server against the second."""
    requests = {
        name: servers.grpc_request(server, model, directory)
        for name, server in zip(("ours", "theirs"), pair, strict=True)
    }
    rates = _rates(requests, callers, effort)
    measured = f"{rates['ours']:,.0f} against {rates['theirs']:,.0f}"
    what = f"{what}, {callers} caller{'s' * (callers > 1)}"
    return Row(what, baseline, measured, rates["ours"] / rates["theirs"], limit, at_least=True)


def _in_turn(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each, measured in turn."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
    return {name: statistics.median(values) for name, values in figures.items()}


def _serving(model: str, models: Path) -> tuple[str, ...]:
    return f"--model_name={model}", f"--model_base_path={models / model}"


def _publish(source: Path, base_path: Path, version: int) -> None:
    """By one rename, of links to the same files: reading them is not what is measured."""
    staging = base_path / ".staging"
    shutil.copytree(source, staging, copy_function=os.link)
    staging.rename(base_path / str(version))


def _held(pid: int) -> tuple[float, int, int]:
    """Resident memory in MB, threads, open files and sockets."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6, int(fields["Threads"]), files


MEASURES = {
    measure.__name__: measure
    for measure in (throughput, overhead, batching, parallelism, first_calls, memory, delays)
}
