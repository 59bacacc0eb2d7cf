"""Benchmark `tfserving tune`: python -m benchmarks.tune [--quick] [--models-dir DIR] [MODEL ...]

Tunes each model on the embedded server. Then it starts servers with run_tf_serving.sh and the settings that
were written, and the same servers as in a trial, alternately, and compares their throughput. Prints the
rows, and replaces the results of these models in tune.json in benchmarks/ or --out. From all results, it
writes tune.md and the charts, and in benchmarks/ also the tables of docs/guide/benchmarks.md and its Chinese
version. Needs requirements.txt.
"""

from __future__ import annotations

import argparse
import datetime
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

from benchmarks import tune_results
from benchmarks.interrupts import run_interruptible, run_process
from benchmarks.report import Row, describe_machine, output_directory, table, time_text
from benchmarks.server.servers import ROOT
from tfserving.bench.measurement import LevelResult, LoadLevel, MeasurementOptions, measure
from tfserving.bench.targets import resolve_targets
from tfserving.bench.workload import Workload, WorkloadFactory
from tfserving.tune.engines import EmbeddedEngine, free_ports
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trial_runner import TrialRunner
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import read_saved_model

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """What is tuned: the callers, the limit of p99 in milliseconds, and the gain that is expected, if any."""

    name: str
    callers: int
    p99_ms: float
    gain: float | None = None


CASES = {
    "trivial": Case("y = x / 2 + 2", 8, 25),
    "mlp": Case("MLP 784-512-256-10", 16, 50),
    "dense": Case("4096x4096 matrix", 64, 300, 1.7),
    "mobilenet": Case("MobileNetV2", 4, 250, 1.25),
    "resnet50": Case("ResNet50", 4, 1000),
}


@dataclass(frozen=True)
class Effort:
    """How long to tune and to measure."""

    budget: str = "10m"
    rounds: int = 2
    seconds: float = 60.0


class TuningFailedError(Exception):
    """`tfserving tune` found no settings."""


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(prog="benchmarks.tune", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help=f"only these of {', '.join(CASES)}")
    add("--quick", action="store_true", help="measure briefly, only to check that it runs")
    add("--budget", default="10m", metavar="TIME", help="for each model (default: 10m)")
    add(
        "--rounds",
        type=int,
        default=2,
        metavar="N",
        help="servers of run_tf_serving.sh to measure for a minute (default: 2)",
    )
    add("--models-dir", type=Path, metavar="DIR", help="models of benchmark_models")
    add(
        "--out",
        type=output_directory,
        default=HERE,
        metavar="DIR",
        help="where to write (default: benchmarks)",
    )
    add("--only-write", action="store_true", help="measure nothing; write all files again from tune.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - CASES.keys():
        parser.error(f"unknown model {', '.join(sorted(unknown))} (choose from {', '.join(CASES)})")
    if arguments.quick and arguments.out == HERE:
        parser.error("--quick needs --out DIR: its figures are not for the committed results")
    effort = Effort("5s", 1, 1.0) if arguments.quick else Effort(arguments.budget, arguments.rounds)
    names = [] if arguments.only_write else arguments.models or list(CASES)
    failed = _measure_all(names, arguments.models_dir, arguments.out, effort)
    if arguments.only_write:
        _write({}, arguments.out)
    return 1 if failed else 0


def _measure_all(names: list[str], models_dir: Path | None, out: Path, effort: Effort) -> list[str]:
    """Measure models and write the results of each; return those that failed."""
    failed = []
    for name in names:
        machine = describe_machine()
        with tempfile.TemporaryDirectory() as temporary:
            directory = models_dir or Path(temporary) / "models"
            if models_dir is None:
                command = [sys.executable, "-m", "benchmarks.server.benchmark_models", str(directory), name]
                subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            try:
                found = measure_model(name, directory, Path(temporary), effort)
            except TuningFailedError as error:
                print(f"benchmarks.tune: {error}", file=sys.stderr)
                failed.append(name)
                continue
        _write({name: {**found, "machine": machine}}, out)
    return failed


def _write(new: tune_results.Results, out: Path) -> None:
    """Write all files from the results in tune.json and new ones."""
    found = {**tune_results.read_results(out), **new}
    results = {name: found[name] for name in CASES if name in found}
    tune_results.write_results(results, out)
    if out == HERE:
        tune_results.update_guide(results, ROOT / "docs" / "guide")


def measure_model(name: str, models_dir: Path, temporary: Path, effort: Effort) -> dict[str, Any]:
    """Tune a model and use the settings; return the results as JSON values."""
    case, out = CASES[name], temporary / "tuned"
    measured, commit = datetime.datetime.now(datetime.timezone.utc), _find_commit()
    report = tune(name, case, models_dir, out, effort)
    load = f"{case.name}, {case.callers} callers"
    rows = [*_gain_rows(load, case, report), *_use_rows(name, case, load, models_dir, out, report, effort)]
    print("\n".join(table(rows).splitlines()[2:]), flush=True)
    return {
        "model": case.name,
        "callers": case.callers,
        "p99_limit": case.p99_ms / 1e3,
        "measured": measured.strftime("%Y-%m-%d %H:%M"),
        "commit": commit,
        "budget": effort.budget,
        "rounds": effort.rounds,
        "seconds": effort.seconds,
        **tune_results.summarize(report),
        "rows": [row.as_json() for row in rows],
    }


def _find_commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"


def tune(name: str, case: Case, models_dir: Path, out: Path, effort: Effort) -> dict[str, Any]:
    """Run the command; return its report.

    Raises:
        TuningFailedError: it failed, or no settings keep the objective.
    """
    command = [sys.executable, "-m", "tfserving", "tune", name, "--models-dir", str(models_dir)]
    command += ["--out", str(out), "--concurrency", str(case.callers), "--p99-ms", str(case.p99_ms)]
    command += ["--budget", effort.budget]
    done = run_process(command, cwd=ROOT, stdout=subprocess.PIPE)
    print(done.stdout, file=sys.stderr, flush=True)
    if done.returncode:
        raise TuningFailedError(f"tfserving tune {name} failed with status {done.returncode}; see above")
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def _gain_rows(load: str, case: Case, report: dict[str, Any]) -> Iterator[Row]:
    confirmed = tune_results.find_confirmed(report)
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
    used, trials = [], []
    for number in range(effort.rounds):
        with run_script(out) as address:
            used.append(_send(address, workload, case.callers, effort.seconds))
        trials.append(runner.run(settings, "confirm", number, effort.seconds))
    row, baseline = (
        f"requests per second, {load}, settings.env with run_tf_serving.sh",
        "servers of the tuning",
    )
    refusals = [result.refused for result in used] + [trial.failure for trial in trials]
    if refusal := next(filter(None, refusals), ""):
        yield Row(row, baseline, f"refused: {refusal}", None, 0.9, True)
        return
    ours, theirs = (statistics.median(each.rate for each in found) for found in (used, trials))
    yield Row(row, baseline, f"{ours:,.0f} against {theirs:,.0f}", ours / theirs, 0.9, True)
    slowest = max(result.quantile(0.99) for result in used)
    errors = sum(sum(result.errors.values()) for result in used)
    measured = f"p99 {time_text(slowest)} in the slowest of {effort.rounds}, {errors} errors"
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
    sys.exit(run_interruptible(main))
