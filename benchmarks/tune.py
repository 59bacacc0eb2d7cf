"""Benchmark `tfserving tune`: python -m benchmarks.tune [--quick] [--models DIR] [MODEL ...]

Tunes each model on the embedded server. Then it starts servers with run_tf_serving.sh and the settings that
were written, and the same servers as in a trial, alternately, and compares their throughput. Prints the
table, and writes tune.md, tune.json and tune.png to benchmarks/ or --out. Needs requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Row, time_text, write
from benchmarks.server.servers import ROOT
from tfserving.bench.measurement import LevelResult, LoadLevel, MeasurementOptions, measure
from tfserving.bench.targets import resolve_targets
from tfserving.bench.workload import Workload, WorkloadFactory
from tfserving.tune.engines import EmbeddedEngine, free_ports
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trial_runner import TrialRunner
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import read_saved_model

PAGE = """# Tuning

`python -m benchmarks.tune` writes this page. It runs `tfserving tune --budget {budget}` for each model, on
the embedded server. The gain is that of the confirmation, in which the default and the tuned settings
alternate. Then `run_tf_serving.sh --env-file settings.env` starts {rounds} servers, each for a measurement of
{seconds:g} seconds; in between, the command's own servers are measured with the same settings.
{machine}.

{table}

✗: the ratio exceeds its limit in this run.

The settings that were found:

{settings}

![each ratio as a share of its limit](tune.png)
"""


@dataclass(frozen=True)
class Case:
    """What is tuned: the callers, the limit of p99 in milliseconds, and the gain that is expected."""

    name: str
    callers: int
    p99_ms: float
    gain: float


CASES = {
    "dense": Case("4096x4096 matrix", 64, 300, 1.7),
    "mobilenet": Case("MobileNetV2", 4, 250, 1.25),
}


@dataclass(frozen=True)
class Effort:
    """How long to tune and to measure."""

    budget: str = "10m"
    rounds: int = 2
    seconds: float = 60.0


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(prog="benchmarks.tune", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"only these of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="measure briefly, only to check that it runs")
    parser.add_argument("--budget", default="10m", metavar="TIME", help="for each model (default: 10m)")
    parser.add_argument("--models-dir", type=Path, metavar="DIR", help="models of benchmark_models")
    here = Path(__file__).parent
    parser.add_argument("--out", type=Path, default=here, metavar="DIR", help="where to write")
    arguments = parser.parse_args()
    effort = Effort("5s", 1, 1.0) if arguments.quick else Effort(arguments.budget)
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        models_dir = arguments.models_dir or Path(temporary) / "models"
        if arguments.models_dir is None:
            command = [sys.executable, "-m", "benchmarks.server.benchmark_models", str(models_dir)]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        rows = _measure(arguments.models or list(CASES), models_dir, Path(temporary), effort, found)
        facts = {"budget": effort.budget, "rounds": effort.rounds, "seconds": effort.seconds}
        done = list(rows)
        settings = "\n".join(f"- {name}: {label}" for name, label in found.items())
        write(arguments.out / "tune", PAGE, done, {**facts, "settings": settings})
    return 0


def _measure(
    names: list[str], models_dir: Path, temporary: Path, effort: Effort, found: dict[str, str]
) -> Iterator[Row]:
    for name in names:
        case, out = CASES[name], temporary / f"tuned-{name}"
        report = tune(name, case, models_dir, out, effort)
        load = f"{case.name}, {case.callers} callers"
        found[load] = report["settings"]["label"]
        yield from _gain_rows(load, case, report)
        yield from _use_rows(name, case, load, models_dir, out, report, effort)


def tune(name: str, case: Case, models_dir: Path, out: Path, effort: Effort) -> dict[str, Any]:
    """Run the command; return its report."""
    command = [sys.executable, "-m", "tfserving", "tune", name, "--models-dir", str(models_dir)]
    command += ["--out", str(out), "--concurrency", str(case.callers), "--p99-ms", str(case.p99_ms)]
    command += ["--budget", effort.budget]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout, file=sys.stderr, flush=True)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    if report["settings"] is None:
        raise RuntimeError(f"no settings of {name} keep the objective; see above")
    return report


def _gain_rows(load: str, case: Case, report: dict[str, Any]) -> Iterator[Row]:
    confirmed = next((each for each in report["confirmations"] if not each["refusal"]), None)
    if confirmed is None:
        yield Row(f"requests per second, {load}, tuned", "default", report["reason"], 1.0, case.gain, True)
        return
    tuned, default = confirmed["tuned"], confirmed["default"]
    interval = confirmed["gain_interval"]
    sure = (
        "" if interval is None else f" (95 % interval of the ratio: {interval[0]:.2f} to {interval[1]:.2f})"
    )
    measured = f"{tuned['rate']:,.0f} against {default['rate']:,.0f}{sure}"
    yield Row(f"requests per second, {load}, tuned", "default", measured, confirmed["gain"], case.gain, True)
    measured = f"{time_text(tuned['p99'])} against {time_text(default['p99'])}"
    yield Row(f"p99, {load}, tuned", "default", measured, tuned["p99"] / default["p99"])
    minutes = f"{report['seconds'] / 60:.1f} min, {len(report['trials'])} trials"
    yield Row(
        f"time of the tuning, {load}",
        f"{report['budget']:.0f} s",
        minutes,
        report["seconds"] / report["budget"],
        1,
    )


def _use_rows(
    name: str, case: Case, load: str, models_dir: Path, out: Path, report: dict[str, Any], effort: Effort
) -> Iterator[Row]:
    """Compare a server of run_tf_serving.sh with one of a trial."""
    version_dir = models_dir / name / "1"
    signatures = read_saved_model(version_dir)
    workload = WorkloadFactory(ModelSpec(name), signatures, is_grpc=True).from_signature({}, None)
    engine = EmbeddedEngine(name, models_dir / name)
    runner = TrialRunner(
        engine, name, 1, workload, is_grpc=True, concurrency=case.callers, start_timeout=300.0
    )
    values = {key: report["settings"][key] for key in ServerSettings().as_json()}
    settings = ServerSettings.from_json(values)
    used, tried, slowest = [], [], 0.0
    for number in range(effort.rounds):
        with run_script(out) as address:
            result = _send(address, workload, case.callers, effort.seconds)
        used.append(result.rate)
        slowest = max(slowest, result.quantile(0.99))
        errors = sum(result.errors.values())
        tried.append(runner.run(settings, "confirm", number, effort.seconds).rate)
    share = statistics.median(used) / (statistics.median(tried) or 1.0)
    measured = f"{statistics.median(used):,.0f} against {statistics.median(tried):,.0f}"
    row = f"requests per second, {load}, settings.env with run_tf_serving.sh"
    yield Row(row, "servers of the tuning", measured, share, 0.9, True)
    measured = f"p99 {time_text(slowest)} in the slower of {effort.rounds}, {errors} errors"
    what = f"p99, {load}, {effort.seconds:g} s with run_tf_serving.sh"
    yield Row(what, f"{case.p99_ms:g} ms", measured, slowest * 1e3 / case.p99_ms, 1)


@contextmanager
def run_script(out: Path) -> Iterator[str]:
    """A server of run_tf_serving.sh with the settings of a tuning; yields its gRPC address."""
    grpc_port, rest_port = free_ports()
    environment = os.environ | {
        "CONTAINER_NAME": f"tune-{grpc_port}",
        "RUN_DIR": str(out / "run"),
        "GRPC_PORT": str(grpc_port),
        "REST_PORT": str(rest_port),
        "VENV": sys.prefix,
    }
    script = ["bash", str(ROOT / "run_tf_serving.sh")]
    subprocess.run(
        [*script, "--env-file", str(out / "settings.env")], env=environment, check=True, stdout=sys.stderr
    )
    try:
        yield f"127.0.0.1:{grpc_port}"
    finally:
        subprocess.run([*script, "stop"], env=environment | {"ENGINE": "embedded"}, check=True)


def _send(address: str, workload: Workload, callers: int, seconds: float) -> LevelResult:
    targets = resolve_targets(address, is_grpc=True, tls=None, headers=())
    requests = [(request.path, request.body) for request in workload.requests]
    options = MeasurementOptions(warmup=min(5.0, seconds), duration=seconds, precision=1e-9)
    return measure(targets, True, requests, LoadLevel(concurrency=callers), options)


if __name__ == "__main__":
    sys.exit(main())
