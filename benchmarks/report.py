"""What a benchmark says: rows with a ratio and its limit, as a table, as JSON, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """A line of the table; ratio and limit are None where there is nothing to divide, or nothing to hold."""

    what: str
    baseline: str
    measured: str
    ratio: float | None
    limit: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the ratio is on the right side of the limit."""
        if self.ratio is None or self.limit is None:
            return True
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit

    def as_json(self) -> dict[str, Any]:
        """The same for machines."""
        return {**self.__dict__, "holds": self.holds}


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    lines = ["| what | baseline | measured | ratio | limit |", "|---|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}{'' if row.holds else ' ✗'}"
        limit = "" if row.limit is None else f"{sign} {row.limit:g}"
        lines.append(f"| {row.what} | {row.baseline} | {row.measured} | {ratio} | {limit} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """How much of its limit each ratio takes."""
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
    """Three digits and a unit."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
    unit, size = next((one for one in units if seconds >= one[1]), units[-1])
    return f"{seconds / size:.3g} {unit}"
