"""tfserving tune: find the server settings that are best for a model, by measurement."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfserving.cli.command import FAILED, new_parser, run_command
from tfserving.cli.connection_options import parse_milliseconds
from tfserving.cli.load_options import (
    INPUT_DETAILS,
    add_input_options,
    check_input_options,
    make_workload,
    parse_positive,
)
from tfserving.cli.release_options import add_release_options, print_json, read_release_options
from tfserving.client.printable import escape_unprintable
from tfserving.errors import InvalidInputError
from tfserving.repository.selection import SelectedVersion, find_model_version

if TYPE_CHECKING:
    from tfserving.bench.workload import Workload
    from tfserving.tune.engines import TuningEngine
    from tfserving.tune.server_settings import ServerSettings
    from tfserving.tune.trial_runner import TrialRunner
    from tfserving.tune.trials import Trial
    from tfserving.tune.tuning_report import TuningReport

_DETAILS = f"""\
{INPUT_DETAILS}
It starts servers on free ports of 127.0.0.1, one after the other, and sends each the same load. Then it
compares the best settings with the default ones, in several rounds. The directory gets settings.env and
batching.config for run_tf_serving.sh, warmup records, report.json and report.html, and trials.jsonl with all
measurements. The same command continues a run that was interrupted.

examples:
  tfserving tune digits --p99-ms 50
  bash run_tf_serving.sh --env-file tuned/digits/settings.env
"""

# Exists if the machine has the driver of NVIDIA and a GPU; a container has a GPU only with --gpu.
_GPUS = Path("/proc/driver/nvidia/gpus")
_UNITS = {"s": 1, "m": 60, "h": 3600}
_SHORTEST_BUDGET, _LONGEST_BUDGET = 5.0, 24 * 3600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        "tfserving tune", "Finds the server settings that are best for a model, by measurement.", _DETAILS
    )
    _add_arguments(parser)
    return run_command(
        parser, argv, _tune, extra="bench", interrupted="interrupted; run the same command again to continue"
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="NAME", help="the model; its newest version is measured")
    add(
        "--objective",
        choices=("throughput", "latency"),
        default="throughput",
        help="what to improve: the highest throughput, or the lowest p99 (default: %(default)s)",
    )
    add("--p99-ms", type=parse_milliseconds, metavar="MS", help="p99 may be at most so many milliseconds")
    add("--concurrency", type=parse_positive, default=8, metavar="N", help="callers (default: %(default)s)")
    add(
        "--budget",
        type=_parse_budget,
        default=600.0,
        metavar="TIME",
        help="time for everything, such as 90s, 10m or 1h (default: 10m)",
    )
    add(
        "--engine",
        choices=("embedded", "docker"),
        default="embedded",
        help="the server to tune (default: %(default)s)",
    )
    add("--image", help="docker: an image of build.sh (default: tfserving-NAME)")
    add("--gpu", default="", metavar="GPU", help="GPUs to use, as the variable GPU of run_tf_serving.sh")
    add("--rest", action="store_true", help="measure the REST API instead of gRPC")
    add_input_options(parser)
    add("--out", type=Path, metavar="DIR", help="where to write (default: tuned/NAME)")
    add_release_options(parser, "models-dir", "timeout", "json")


def _parse_budget(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not _SHORTEST_BUDGET <= seconds <= _LONGEST_BUDGET:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 5s to 24h, such as 90s, 10m or 1h")
    return float(seconds)


def _tune(arguments: argparse.Namespace) -> int:
    import matplotlib  # noqa: F401 - before the measurements

    from tfserving.bench.measurement import available_cpus
    from tfserving.tune import tuning_files
    from tfserving.tune.search_space import SearchSpace, rows_of
    from tfserving.tune.trial_runner import TrialRunner
    from tfserving.tune.trials import Objective, TrialFile
    from tfserving.tune.tuning import Tuning
    from tfserving.tune.tuning_report import TuningReport
    from tfserving.wire.model_spec import ModelSpec
    from tfserving.wire.signatures import read_saved_model

    check_input_options(arguments)
    if arguments.engine == "embedded" and arguments.image:
        raise InvalidInputError("--image is for --engine docker; omit it")
    options = read_release_options(arguments)
    if "/" in arguments.model:
        raise InvalidInputError(
            f"{arguments.model!r} is not the name of a model; omit the version: the newest one is measured"
        )
    selected = find_model_version(options.models_dir, arguments.model)
    signatures = read_saved_model(selected.path)
    spec = ModelSpec(selected.model, signature=arguments.signature)
    workload = make_workload(arguments, spec, signatures)
    directory = arguments.out or Path("tuned") / selected.model
    engine = _make_engine(arguments, selected, directory)
    space = SearchSpace(
        cpus=available_cpus(),
        concurrency=arguments.concurrency,
        rows=rows_of(workload, signatures),
        queues_requests=engine.queues_requests,
        has_gpu=bool(arguments.gpu) or (arguments.engine == "embedded" and _GPUS.exists()),
    )
    objective = Objective(
        arguments.objective == "latency", None if arguments.p99_ms is None else arguments.p99_ms / 1e3
    )
    runner = TrialRunner(
        engine,
        selected.model,
        selected.version,
        workload,
        is_grpc=not arguments.rest,
        concurrency=arguments.concurrency,
        start_timeout=options.timeout,
    )
    study = _describe_study(arguments, selected, workload)
    tuning_files.make_directory(directory)
    file = TrialFile(directory / tuning_files.TRIALS, study)
    try:
        progress = _Progress(runner, arguments.budget)
        if file.trials:
            progress.note(f"continuing with {len(file.trials)} trials of {directory / tuning_files.TRIALS}")
        tuning = Tuning(space, objective, file, progress.run, arguments.budget, progress.show)
        report = TuningReport(study, workload.description, objective, arguments.budget, tuning.tune())
        if report.result.settings is None:
            tuning_files.remove_settings(directory)
        else:
            variables = _variables(arguments, selected)
            tuning_files.write_settings(
                directory, report.result.settings, variables, selected.model, workload
            )
        tuning_files.write_report(directory, report.as_json(), report.as_html())
    finally:
        file.close()
    _print_result(arguments, report, selected, directory)
    return FAILED if report.result.settings is None else 0


def _make_engine(arguments: argparse.Namespace, selected: SelectedVersion, directory: Path) -> TuningEngine:
    from tfserving.tune.engines import DockerEngine, EmbeddedEngine

    base_path = selected.path.parent
    if arguments.engine == "embedded":
        return EmbeddedEngine(selected.model, base_path, arguments.gpu)
    name = f"tfserving-tune-{hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:12]}"
    return DockerEngine(selected.model, base_path, _image(arguments), name, arguments.gpu)


def _image(arguments: argparse.Namespace) -> str:
    # docker allows no capitals in a repository name
    return str(arguments.image or f"tfserving-{arguments.model.lower()}")


def _describe_study(
    arguments: argparse.Namespace, selected: SelectedVersion, workload: Workload
) -> dict[str, Any]:
    """What trials must have in common to be compared, as JSON values."""
    bodies = hashlib.sha256()
    for request in workload.requests:
        bodies.update(request.body)
    return {
        "model": selected.model,
        "version": selected.version,
        "engine": arguments.engine,
        "image": _image(arguments) if arguments.engine == "docker" else None,
        "gpu": arguments.gpu or None,
        "api": "REST" if arguments.rest else "gRPC",
        "callers": arguments.concurrency,
        "requests": bodies.hexdigest(),
    }


def _variables(arguments: argparse.Namespace, selected: SelectedVersion) -> dict[str, str]:
    """The variables of run_tf_serving.sh for what was measured, without the settings."""
    found = {"ENGINE": arguments.engine, "MODEL_NAME": selected.model}
    if arguments.models_dir is not None:
        found["MODELS_DIR"] = str(arguments.models_dir.absolute())
    if arguments.image:
        found["IMAGE_NAME"] = arguments.image
    if arguments.gpu:
        found["GPU"] = arguments.gpu
    return found


def _print_result(
    arguments: argparse.Namespace, report: TuningReport, selected: SelectedVersion, directory: Path
) -> None:
    from tfserving.tune import tuning_files

    if arguments.json:
        print_json(report.as_json())
        return
    lines = [report.as_text(), ""]
    settings = report.result.settings
    if settings is not None:
        lines.append(f"start:  bash run_tf_serving.sh --env-file {directory / tuning_files.SETTINGS}")
        if settings.batching is not None:
            sizes = f"--batching-parameters-file {directory / tuning_files.BATCHING}"
            lines.append(f"warmup: tfserving warmup {selected.model} {sizes}")
    lines.append(f"report: {directory / tuning_files.REPORT_HTML}")
    print(escape_unprintable("\n".join(lines), keep="\n"))


class _Progress:
    """A line on stderr for each trial; on a terminal also what is being done."""

    def __init__(self, runner: TrialRunner, budget: float) -> None:
        self._runner = runner
        self._budget = budget
        self._is_terminal = sys.stderr.isatty()

    def run(self, settings: ServerSettings, phase: str, number: int, seconds: float) -> Trial:
        """Run a trial."""

        def show(step: str) -> None:
            if self._is_terminal:
                print(f"\r\x1b[K{step}: {settings.label}"[:120], end="", file=sys.stderr, flush=True)

        try:
            return self._runner.run(settings, phase, number, seconds, show)
        finally:
            if self._is_terminal:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, trial: Trial, used: float) -> None:
        """Show the result of a trial."""
        figures = f"{trial.rate:,.4g} calls/s, p99 {trial.p99 * 1e3:.3g} ms"
        if trial.errors:
            figures += f", {sum(trial.errors.values())} errors"
        text = trial.failure or figures
        self.note(f"[{_clock(used)} of {_clock(self._budget)}] {trial.phase}, {trial.settings.label}: {text}")

    def note(self, text: str) -> None:
        """Print a line."""
        print(escape_unprintable(text), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
