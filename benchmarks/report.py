"""Reports benchmarks: rows with a ratio and its limit, as a table, as JSON and as a chart."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

# One-minute load average above which the results are unreliable.
_IDLE_LOAD = 0.5


def output_directory(text: str) -> Path:
    """The directory of `--out`, created before the measurement: its results must not be lost."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot create the directory {text!r}: {error.strerror}") from error
    return path


def arguments_of(program: str, about: str, measures: Sequence[str] = ()) -> argparse.Namespace:
    """Parse the command line of a benchmark: quick, out and measures.

    Args:
        program: the name of the module.
        about: its docstring.
        measures: the names from which the user can choose.
    """
    parser = argparse.ArgumentParser(prog=program, description=about.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="measure briefly, only to check that it runs")
    here = Path(__file__).parent
    parser.add_argument(
        "--out",
        type=output_directory,
        default=here,
        metavar="DIR",
        help="where to write (default: benchmarks)",
    )
    if measures:
        choice = f"only these of {', '.join(measures)}"
        parser.add_argument("measures", nargs="*", metavar="MEASURE", help=choice)
    arguments = parser.parse_args()
    unknown = set(arguments.measures) - set(measures) if measures else ()
    if unknown:
        parser.error(f"unknown measure {', '.join(sorted(unknown))} (choose from {', '.join(measures)})")
    busy = os.getloadavg()[0]
    if busy > _IDLE_LOAD and not arguments.quick:
        print(
            f"{program}: the load average is {busy:.2f}; results are reliable only below {_IDLE_LOAD}",
            file=sys.stderr,
        )
    return arguments


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        what: what is measured.
        baseline: what it is compared with.
        measured: the measured values, as text.
        ratio: the measured value divided by the baseline, if there is one.
        limit: the largest ratio allowed, or the smallest one with `at_least`.
        at_least: a higher ratio is better.
    """

    what: str
    baseline: str
    measured: str
    ratio: float | None
    limit: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the ratio is within the limit."""
        if self.ratio is None or self.limit is None:
            return True
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**self.__dict__, "holds": self.holds}


def compared(what: str, baseline: str, ours: float, theirs: float, limit: float | None = None) -> Row:
    """Make a row from two times in seconds."""
    return Row(what, baseline, f"{time_text(ours)} against {time_text(theirs)}", ours / theirs, limit)


def describe_machine() -> dict[str, Any]:
    """Return what the results of a run depend on."""
    return {
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "numpy": version("numpy"),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load average at the start": round(os.getloadavg()[0], 2),
    }


def write(path: Path, page: str, rows: Iterable[Row], facts: Mapping[str, object]) -> None:
    """Print each row when it is measured; then write all rows to `path` with .md, .json and .png.

    Args:
        page: the content of the .md, with {table}, {machine} and the names of the facts.
        facts: values about the run.
    """
    machine = describe_machine()
    done = []
    for row in rows:
        print(table([row]).splitlines()[-1], flush=True)
        done.append(row)
    found = {"machine": machine, **facts, "rows": [row.as_json() for row in done]}
    write_json(path.with_suffix(".json"), found)
    of_machine = ", ".join(f"{name} {value}" for name, value in machine.items())
    text = page.format(table=table(done), machine=of_machine, **facts)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    plot(done, path.with_suffix(".png"))


def write_json(path: Path, values: object) -> None:
    """Write values in the form of the committed results."""
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def table(rows: Sequence[Row]) -> str:
    """Format rows as a table in Markdown."""
    lines = ["| what | baseline | measured | ratio | limit |", "|---|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}{'' if row.holds else ' ✗'}"
        limit = "" if row.limit is None else f"{sign} {row.limit:g}"
        lines.append(f"| {row.what} | {row.baseline} | {row.measured} | {ratio} | {limit} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw a bar for each row with a limit: the share of the limit that its ratio uses."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row.ratio and row.limit]
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


def time_text(seconds: float) -> str:
    """Format a time with three digits and a unit."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
    unit, size = next((one for one in units if seconds >= one[1]), units[-1])
    return f"{seconds / size:.3g} {unit}"
