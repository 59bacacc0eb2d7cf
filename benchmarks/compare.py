"""Compare the benchmarks of this checkout with those of another one: python -m benchmarks.compare OTHER

Runs the suites of both checkouts alternately (this, other, this, other, ...), so that a slow phase of the
machine affects both. For each row, prints the median of this checkout, of the other one, and their quotient,
once for the ratio to the row's baseline and once for the measured value. Writes compare.md and compare.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.interrupts import run_interruptible, run_process
from benchmarks.report import output_directory

ROOT = Path(__file__).parents[1]
SUITES = ("client", "server")
# A quotient that is worse by more than this is marked.
TOLERANCE = 0.05

Rows = list[dict[str, Any]]

_UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_QUANTITY = re.compile(r"(?:median )?([\d,.]*\d)(?: (ns|µs|ms|s)\b)?")


class Comparison(NamedTuple):
    """One figure of a row: its values in each run of both checkouts. Times are in seconds."""

    name: str
    this: list[float]
    other: list[float]
    higher_is_better: bool

    @property
    def quotient(self) -> float | None:
        """Median of this checkout divided by that of the other; None unless both are positive."""
        this, other = statistics.median(self.this), statistics.median(self.other)
        return this / other if this > 0 and other > 0 else None

    @property
    def is_worse(self) -> bool:
        """Whether this checkout is worse by more than the tolerance."""
        if self.quotient is None:
            return False
        return self.quotient < 1 - TOLERANCE if self.higher_is_better else self.quotient > 1 + TOLERANCE


def run_alternately(
    checkouts: Sequence[Path], suite: str, rounds: int, arguments: Sequence[str]
) -> list[list[Rows]]:
    """Run a suite of each checkout in turn; return the rows of each run of each checkout."""
    runs: list[list[Rows]] = [[] for _ in checkouts]
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": f"{directory}/pycache"}
        for number in range(rounds):
            for checkout, rows in zip(checkouts, runs, strict=True):
                print(f"round {number + 1} of {rounds}: {suite} of {checkout}", file=sys.stderr, flush=True)
                command = [sys.executable, "-m", f"benchmarks.{suite}", "--out", directory, *arguments]
                done = run_process(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
                done.check_returncode()
                rows.append(json.loads((Path(directory) / f"{suite}.json").read_text())["rows"])
    return runs


def compare(these: Sequence[Rows], others: Sequence[Rows]) -> list[Comparison]:
    """Pair the rows of two checkouts; each argument has the rows of each run.

    Rows are paired by their names without decimal fractions, which some measure in the run. If as many rows
    are left over on both sides, they are paired in their order: they were renamed. Others are dropped.
    """
    names, other_names = ([_row_name(row) for row in runs[0]] for runs in (these, others))
    left = [index for index, name in enumerate(other_names) if name not in names]
    renamed = iter(left if len(left) == sum(name not in other_names for name in names) else ())
    comparisons = []
    for index, name in enumerate(names):
        match = other_names.index(name) if name in other_names else next(renamed, None)
        if match is None:
            print(f"no such row in the other checkout: {name}", file=sys.stderr)
            continue
        shown = name if name == other_names[match] else f"{name} (was: {others[0][match]['what']})"
        higher_is_better = bool(these[0][index]["at_least"])
        for kind, read in (("ratio", _read_ratio), ("measured", _read_measured)):
            this = [value for run in these if (value := read(run[index])) is not None]
            other = [value for run in others if (value := read(run[match])) is not None]
            if this and other:
                comparisons.append(Comparison(f"{shown}: {kind}", this, other, higher_is_better))
    return comparisons


def format_table(comparisons: Sequence[Comparison]) -> str:
    """Format a table in Markdown."""
    lines = ["| row | this: median (runs) | other: median (runs) | this / other |", "|---|---|---|---|"]
    for one in comparisons:
        this, other = (
            f"{statistics.median(values):.4g} ({', '.join(f'{value:.4g}' for value in values)})"
            for values in (one.this, one.other)
        )
        quotient = "" if one.quotient is None else f"{one.quotient:.3f}{' ✗' * one.is_worse}"
        lines.append(f"| {one.name} | {this} | {other} | {quotient} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("other", type=Path, help="directory of the other checkout")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each checkout (default: 3)")
    parser.add_argument("--suite", choices=SUITES, action="append", help="only this suite")
    parser.add_argument("--measure", action="append", default=[], help="only this measure (server suite)")
    parser.add_argument("--quick", action="store_true", help="only check that the suites run")
    parser.add_argument(
        "--out", type=output_directory, default=Path(), metavar="DIR", help="where to write (default: .)"
    )
    options = parser.parse_args()
    comparisons = []
    for suite in options.suite or SUITES:
        arguments = ["--quick"] * options.quick + (options.measure if suite == "server" else [])
        comparisons += compare(*run_alternately((ROOT, options.other), suite, options.rounds, arguments))
    table = format_table(comparisons)
    print(table)
    (options.out / "compare.md").write_text(table, encoding="utf-8")
    figures = [{**one._asdict(), "quotient": one.quotient, "is_worse": one.is_worse} for one in comparisons]
    (options.out / "compare.json").write_text(
        json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    return 0


def _row_name(row: dict[str, Any]) -> str:
    return re.sub(r"\d+\.\d+", "N", f"{row['what']}, against {row['baseline']}")


def _read_ratio(row: dict[str, Any]) -> float | None:
    return None if row["ratio"] is None else float(row["ratio"])


def _read_measured(row: dict[str, Any]) -> float | None:
    """Read the first quantity of a text such as "401 µs against 383 µs"."""
    match = _QUANTITY.match(row["measured"])
    return float(match[1].replace(",", "")) * _UNITS.get(match[2], 1.0) if match else None


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
