"""The files of a result: for the server, for the version, and the report."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfserving.bench.workload import Workload
from tfserving.errors import RepositoryError
from tfserving.repository.warmup_records import write_warmup
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trial_runner import warmup_inputs
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import encode_request

TRIALS, SETTINGS, BATCHING = "trials.jsonl", "settings.env", "batching.config"
REPORT_JSON, REPORT_HTML = "report.json", "report.html"


def make_directory(path: Path) -> None:
    """Create the directory for the files.

    Raises:
        RepositoryError: it cannot be created, or not be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RepositoryError(
            f"cannot create {path}: {error.strerror}; pass another --out directory"
        ) from error
    if not os.access(path, os.W_OK):
        raise RepositoryError(f"cannot write to {path}; pass another --out directory")


def write_settings(
    directory: Path, settings: ServerSettings, variables: Mapping[str, str], model: str, workload: Workload
) -> None:
    """Write the settings for run_tf_serving.sh, and warmup records for their batch sizes.

    Args:
        directory: where to write.
        variables: more variables of run_tf_serving.sh.
        model: name of the model.
        workload: the requests, for the records.
    """
    remove_settings(directory)
    found = dict(variables)
    sizes: tuple[int, ...] = ()
    if settings.batching is not None:
        _write(directory / BATCHING, settings.batching.text)
        found["BATCHING_PARAMETERS_FILE"] = str((directory / BATCHING).absolute())
        sizes = settings.batching.allowed_batch_sizes
    if settings.auto_jit:
        found["XLA"] = "auto"
    first = workload.requests[0]
    spec = ModelSpec(model, signature=first.signature)
    write_warmup(directory, (encode_request(spec, inputs) for inputs in warmup_inputs(first, sizes)))
    lines = ["# From tfserving tune, for run_tf_serving.sh --env-file"]
    lines += [f"{name}={value}" for name, value in found.items()]
    _write(directory / SETTINGS, "".join(f"{line}\n" for line in [*lines, *settings.flags]))


def remove_settings(directory: Path) -> None:
    """Remove what `write_settings` wrote before."""
    for name in (SETTINGS, BATCHING):
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory / "assets.extra")


def write_report(directory: Path, report: Mapping[str, Any], page: str) -> None:
    """Write the report as JSON and as HTML."""
    _write(directory / REPORT_JSON, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    _write(directory / REPORT_HTML, page)


def _write(path: Path, text: str) -> None:
    """Replace a file by one rename."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
