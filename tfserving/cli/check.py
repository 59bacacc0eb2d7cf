"""tfserving check: check a models.config, the models that it names, and single versions."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tfserving.cli.command import MISUSE, new_parser, run_command
from tfserving.cli.config_file import add_config, add_models_dir, find_diagnostics, read_text
from tfserving.cli.connection_options import add_security_options
from tfserving.errors import ExportError
from tfserving.repository import memory_need
from tfserving.repository.completeness import find_notes, find_version_error
from tfserving.repository.config import from_message
from tfserving.repository.config_text import read_message
from tfserving.repository.diagnostics import Severity, has_errors
from tfserving.repository.memory_need import MemoryNeed, format_size
from tfserving.repository.selection import select_versions
from tfserving.repository.versions import find_versions


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving check") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Checks a models.config and, with --models-dir, the models that it names; or single versions. Prints "
        "each error and note with its line and a hint. A version is complete if its graph parses and the "
        "files of its variables have the sizes that their index says. Notes do not change the exit status.",
        f"examples:\n  {prog} --config models/models.config --models-dir models\n"
        f"  {prog} --config models/models.config --models-dir models --memory 4g --json\n"
        f"  {prog} --config models/models.config --models-dir models --server 127.0.0.1:8500\n"
        f"  {prog} models/digits/1 --load\n",
    )
    parser.add_argument("versions", nargs="*", metavar="DIR", help="a version, for example models/digits/1")
    add_config(parser, optional=True)
    add_models_dir(parser, optional=True)
    parser.add_argument(
        "--load",
        action="store_true",
        help="also load each version in a new process with TensorFlow and run it once: its warmup records "
        "or, without any, zeros for each signature",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        default=os.environ.get("MEMORY") or None,
        help="the memory of the server, such as 4g or 512m; notes if the versions do not fit while the "
        "largest one is updated; default: $MEMORY, else the memory of this machine",
    )
    parser.add_argument(
        "--server",
        metavar="HOST:PORT[,...]",
        help="also report selected versions that these servers could not load, and ops that they lack; ops "
        "are looked up in the TensorFlow that is installed here, which takes seconds",
    )
    add_security_options(parser)
    parser.add_argument("--json", action="store_true", help="print errors and notes as one JSON document")
    return run_command(parser, argv, partial(_check, parser), extra="export")


@dataclass(frozen=True)
class _Finding:
    """An error or a note about a file or a directory."""

    path: str
    line: int | None
    severity: str
    message: str
    hint: str

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return "; ".join(filter(None, (f"{where}: {self.severity}: {self.message}", self.hint)))


@dataclass
class _Report:
    """What check prints: as text immediately, or as one JSON document at the end."""

    json: bool
    findings: list[_Finding] = field(default_factory=list)
    need: MemoryNeed | None = None
    memory: int | None = None

    def add(
        self, path: str | Path, severity: Severity, message: str, hint: str = "", line: int | None = None
    ) -> None:
        finding = _Finding(str(path), line, severity.value, message, hint)
        self.findings.append(finding)
        if not self.json:
            print(finding, file=sys.stderr)

    def add_success(self, text: str) -> None:
        if not self.json:
            print(f"{text}: no errors")

    @property
    def is_correct(self) -> bool:
        return all(finding.severity != Severity.ERROR.value for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """The JSON document; sizes are in bytes."""
        memory = None
        if self.need is not None:
            memory = {
                "versions": self.need.serving,
                "during_update": self.need.updating,
                "available": self.memory,
            }
        findings = [asdict(finding) for finding in self.findings]
        return {"ok": self.is_correct, "findings": findings, "memory": memory}


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int | None:
    file, models_dir, load = arguments.config, arguments.models_dir, arguments.load
    if not (file or arguments.versions):
        parser.error("nothing to check; give --config FILE or the directories of versions")
    if file and load and models_dir is None:
        parser.error("--load needs the versions; give --models-dir as well")
    if arguments.server and not (file and models_dir):
        parser.error("--server needs the versions of a config; give --config and --models-dir as well")
    report = _Report(arguments.json)
    if file:
        _check_config(report, arguments)
    for version in arguments.versions:
        _check_version(report, version, load=load)
    if arguments.json:
        print(json.dumps(report.document(), indent=2, ensure_ascii=False))
    return None if report.is_correct else MISUSE


def _check_config(report: _Report, arguments: argparse.Namespace) -> None:
    file, models_dir, memory = arguments.config, arguments.models_dir, arguments.memory
    size = memory_need.parse_size(memory) if memory else memory_need.total_memory()
    text = read_text(file)
    diagnostics = find_diagnostics(text, models_dir)
    for each in diagnostics:
        report.add(file, each.severity, each.message, each.hint, each.line)
    if has_errors(diagnostics):
        return
    if models_dir is not None:
        selected = select_versions(from_message(read_message(text)), models_dir)
        report.need, report.memory = memory_need.estimate_need(selected), size
        _check_memory(report, file, report.need, size, "the server" if memory else "this machine")
        if arguments.load:
            for version in selected:
                _load_version(report, version.path)
        if arguments.server:
            from tfserving.cli.check_servers import check_servers
            from tfserving.cli.release_options import read_release_options

            for severity, message, hint in check_servers(read_release_options(arguments), selected):
                report.add(file, severity, message, hint, 1)
        if not report.is_correct:
            return
    report.add_success(f"{file} and {models_dir}" if models_dir else file)


def _check_memory(report: _Report, file: str, need: MemoryNeed, size: int, where: str) -> None:
    largest = need.largest
    if largest is None or need.updating <= size:
        return
    if need.serving > size:
        message = f"the selected versions need at least {format_size(need.serving)} of memory"
        hint = "select fewer versions, or divide the models among several servers"
    else:
        message = (
            f"the selected versions need at least {format_size(need.serving)} of memory, and "
            f"{format_size(need.updating)} while {largest.model} {largest.version} is updated, since the old "
            "version serves until the new one is loaded"
        )
        hint = "use more memory, select fewer versions, or divide the models among several servers"
    report.add(file, Severity.NOTE, f"{message}; {where} has {format_size(size)}", hint, 1)


def _check_version(report: _Report, path: str, *, load: bool) -> None:
    error = find_version_error(path)
    if error is not None:
        versions = list(find_versions(path).values()) if Path(path).is_dir() else []
        hint = f"give a version, such as {versions[-1]}" if versions else "copy or export it again"
        report.add(path, Severity.ERROR, f"it {error}", hint)
        return
    for message, hint in find_notes(path):
        report.add(path, Severity.NOTE, f"the model {message}", hint)
    if load and not _load_version(report, path):
        return
    report.add_success(path)


def _load_version(report: _Report, path: str | Path) -> bool:
    """Load and run a version, and report what fails; returns whether nothing did."""
    from tfserving.export.replay import run_in_fresh_process

    try:
        failures = run_in_fresh_process(path)
    except ExportError as error:
        report.add(path, Severity.ERROR, str(error))
        return False
    for failure in failures:
        request = f"request {failure.number} (signature {failure.signature!r})"
        report.add(path, Severity.ERROR, f"{request} fails: {failure.reason}")
    return not failures
