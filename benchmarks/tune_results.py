"""The results of benchmarks.tune: kept by model in tune.json, and written as pages, tables and charts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Row, plot, table, time_text, write_json
from tfserving.bench.load_results import format_rate

# What benchmarks.tune keeps of a model: see `summarize` and benchmarks/tune.py.
Results = Mapping[str, Mapping[str, Any]]

PAGE = """# Tuning

`python -m benchmarks.tune` writes this page. It runs `tfserving tune` for each model, on the embedded server.
The gain is that of the confirmation, in which the default and the tuned settings alternate. Then
`run_tf_serving.sh --env-file settings.env` starts servers with the settings that were written; in between,
the command's own servers are measured with the same settings.

{table}

✗: the ratio exceeds its limit in this run.

The runs, and the settings that were found:

{runs}

![each ratio as a share of its limit](tune.png)

![throughput and p99 of each model, out of the box and tuned](tune-models.png)
"""


@dataclass(frozen=True)
class GuidePage:
    """A page of the guide with a table of the figures and a table of the runs.

    Attributes:
        figures, runs: the heads of the tables.
        interval: the format of a gain with its interval.
    """

    name: str
    figures: Sequence[str]
    runs: Sequence[str]
    interval: str


GUIDE_PAGES = (
    GuidePage(
        "benchmarks.md",
        (
            *("model", "callers", "p99 at most", "out of the box: requests/s", "p99"),
            *("tuned: requests/s", "p99", "gain (95 % interval)"),
        ),
        ("model", "settings found", "budget", "measured (UTC)", "commit", "load average at the start"),
        "{:.2f} ({:.2f} to {:.2f})",
    ),
    GuidePage(
        "benchmarks.zh.md",
        (
            *("模型", "调用者", "p99 上限", "开箱即用：每秒请求数", "p99"),
            *("调优后：每秒请求数", "p99", "提升倍数（95 % 置信区间）"),
        ),
        ("模型", "找到的设置", "时间预算", "测量时间（UTC）", "提交", "开始时的平均负载"),
        "{:.2f}（{:.2f} 到 {:.2f}）",
    ),
)


def find_confirmed(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the confirmation of the chosen settings; None if the default stays."""
    return next((each for each in report["confirmations"] if not each["refusal"]), None)


def summarize(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a report of `tfserving tune`; "tuned" is None if the default stays."""
    confirmations, confirmed = report["confirmations"], find_confirmed(report)
    if confirmations:
        default = (confirmed or confirmations[0])["default"]
    else:
        trials = [trial for trial in report["trials"] if trial["label"] == "default" and trial["rate"]]
        default = max(trials, key=lambda trial: float(trial["seconds"]))
    return {
        "settings": report["settings"]["label"],
        "reason": report["reason"],
        "default": _figures(default),
        "tuned": None if confirmed is None else _figures(confirmed["tuned"]),
        "gain": None if confirmed is None else confirmed["gain"],
        "gain_interval": None if confirmed is None else confirmed["gain_interval"],
    }


def _figures(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"rate": values["rate"], "p99": values["p99"]}


def read_results(directory: Path) -> dict[str, Any]:
    """Read the results that `write_results` wrote; none if there is no file."""
    path = directory / "tune.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_results(results: Results, directory: Path) -> None:
    """Write tune.json, tune.md and the charts."""
    write_json(directory / "tune.json", results)
    (directory / "tune.md").write_text(format_page(results), encoding="utf-8")
    plot(_rows(results), directory / "tune.png")
    plot_models(results, directory / "tune-models.png")


def format_page(results: Results) -> str:
    """Return the content of tune.md."""
    runs = []
    for one in results.values():
        machine = ", ".join(f"{name} {value}" for name, value in one["machine"].items())
        runs.append(
            f"- {one['model']}: {one['settings']}. {one['measured']} UTC, commit {one['commit']}, "
            f"`--budget {one['budget']}`, {one['rounds']} servers of run_tf_serving.sh for "
            f"{one['seconds']:g} seconds each, {machine}."
        )
    return PAGE.format(table=table(_rows(results)), runs="\n".join(runs))


def _rows(results: Results) -> list[Row]:
    found = [row for one in results.values() for row in one["rows"]]
    return [Row(**{name: value for name, value in row.items() if name != "holds"}) for row in found]


def update_guide(results: Results, directory: Path) -> None:
    """Replace the tables of both pages of the guide.

    Raises:
        ValueError: a page has no table with this head.
    """
    for page in GUIDE_PAGES:
        path = directory / page.name
        path.write_text(replace_tables(path.read_text(encoding="utf-8"), page, results), encoding="utf-8")


def replace_tables(text: str, page: GuidePage, results: Results) -> str:
    """Return the text of a page with the tables of these results; see `update_guide`."""
    figures = [_figure_cells(page, one) for one in results.values()]
    runs = [_run_cells(one) for one in results.values()]
    for head, rows in ((page.figures, figures), (page.runs, runs)):
        start = text.index(_format_line(head))
        end = text.index("\n\n", start)
        lines = [_format_line(cells) for cells in (head, ["---"] * len(head), *rows)]
        text = text[:start] + "\n".join(lines) + text[end:]
    return text


def _figure_cells(page: GuidePage, one: Mapping[str, Any]) -> list[str]:
    cells = [one["model"], str(one["callers"]), f"{one['p99_limit'] * 1e3:g} ms"]
    for figures in (one["default"], one["tuned"]):
        cells += ["–", "–"] if figures is None else [format_rate(figures["rate"]), time_text(figures["p99"])]
    if one["gain"] is None:
        return [*cells, "–"]
    if one["gain_interval"] is None:
        return [*cells, f"{one['gain']:.2f}"]
    return [*cells, page.interval.format(one["gain"], *one["gain_interval"])]


def _run_cells(one: Mapping[str, Any]) -> list[str]:
    load = one["machine"]["load average at the start"]
    return [one["model"], one["settings"], one["budget"], one["measured"], one["commit"], str(load)]


def _format_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plot_models(results: Results, path: Path) -> None:
    """Draw throughput and p99 of each model, out of the box and tuned, and the limit of p99."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = list(results.values())
    size = (11, 0.8 * len(shown) + 1.4)
    figure, (left, right) = pyplot.subplots(1, 2, sharey=True, figsize=size, layout="constrained")
    rates = [_points(shown, name, "rate", 1.0) for name in ("default", "tuned")]
    tails = [_points(shown, name, "p99", 1e3) for name in ("default", "tuned")]
    _plot_points(left, rates, format_rate, is_label_right=True)
    limits = [one["p99_limit"] * 1e3 for one in shown]
    style = {"marker": "|", "s": 500, "linewidth": 2, "color": "#e45756", "label": "limit of p99"}
    right.scatter(limits, range(len(shown)), **style)
    _plot_points(right, tails, lambda value: time_text(value / 1e3), is_label_right=False, also=limits)
    left.set_xlabel("requests per second (log scale)")
    right.set_xlabel("p99 in ms (log scale)")
    left.set_yticks(range(len(shown)), [f"{one['model']}\n{one['callers']} callers" for one in shown])
    left.set_ylim(len(shown) - 0.5, -0.5)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _points(
    shown: Sequence[Mapping[str, Any]], name: str, figure: str, scale: float
) -> list[tuple[float, float]]:
    """The value and the place of each model; default and tuned are beside each other."""
    offset = -0.16 if name == "default" else 0.16
    return [(one[name][figure] * scale, place + offset) for place, one in enumerate(shown) if one[name]]


def _plot_points(
    axes: Any,
    groups: Sequence[Sequence[tuple[float, float]]],
    format_value: Any,
    *,
    is_label_right: bool,
    also: Sequence[float] = (),
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for points, label, color in zip(groups, ("out of the box", "tuned"), ("#4c78a8", "#f58518"), strict=True):
        if points:
            axes.scatter(*zip(*points, strict=True), s=45, color=color, label=label)
        for value, place in points:
            distance, side = (7, "left") if is_label_right else (-7, "right")
            axes.annotate(
                format_value(value),
                (value, place),
                (distance, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=9,
            )
    values = [*also, *(value for points in groups for value, _ in points)]
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 4, max(values) * 4)
    is_wide = math.log10(max(values) / min(values)) > 1.5
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
