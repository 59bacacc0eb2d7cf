"""The results of a benchmark as one HTML file with charts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfserving.bench.html_page import as_page, draw_chart
from tfserving.bench.load_results import LoadResults, as_json, format_rate, format_seconds
from tfserving.bench.measurement import LevelResult

# Latencies in a chart: quantiles that are equally spaced in the number of nines.
_SHARES = 1 - np.logspace(0, -4, 161)


def as_html(results: LoadResults) -> str:
    """The page.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    shown = [level for level in results.levels if not level.refused and len(level.latencies)]
    charts = []
    if shown:
        charts = [
            _section("Latency distribution", draw_chart(_plot_latencies, shown)),
            _section("Throughput and p99", draw_chart(_plot_throughput, shown)),
        ]
    failing = [level for level in results.levels if not level.refused]
    if failing:
        charts.append(_section("Errors over time", draw_chart(_plot_errors, failing)))
    parts = [f"<p>{html.escape(results.workload)}</p>", _table(results), *charts]
    return as_page(results.title, parts, as_json(results))


def _table(results: LoadResults) -> str:
    heads = ("load", "calls/s", "p50", "p90", "p99", "95 % interval of p99", "errors", "generator busy")
    rows = ["".join(f"<th>{head}</th>" for head in heads)]
    remarks = []
    for level in results.levels:
        label = f"<td>{level.level.label}</td>"
        if level.refused:
            rows.append(f'{label}<td class="refused" colspan="{len(heads) - 1}">refused</td>')
        else:
            rows.append(label + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(level)))
        remarks += [f"{level.level.label}: {text}" for text in (level.refused, *level.notes) if text]
    items = "".join(f"<li>{html.escape(remark)}</li>" for remark in remarks)
    table = f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    return table + (f"<ul>{items}</ul>" if items else "")


def _cells(level: LevelResult) -> list[str]:
    interval = level.p99_interval
    return [
        format_rate(level.rate),
        *(format_seconds(level.quantile(q)) for q in (0.5, 0.9, 0.99)),
        "–" if interval is None else " to ".join(map(format_seconds, interval)),
        f"{sum(level.errors.values()):,}",
        f"{level.usage.busy:.0%}",
    ]


def _section(title: str, chart: str) -> str:
    return f"<h2>{title}</h2>{chart}"


def _plot_latencies(axes: Any, levels: Sequence[LevelResult]) -> None:
    for level in levels:
        # a quantile is shown only if there are samples beyond it
        shares = _SHARES[(1 - _SHARES) * len(level.latencies) >= 1]
        latencies = np.quantile(level.latencies, shares, method="inverted_cdf")
        axes.plot(1 / (1 - shares), latencies * 1e3, label=level.level.label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    marks = {2: "50 %", 10: "90 %", 100: "99 %", 1000: "99.9 %", 10000: "99.99 %"}
    axes.set_xticks(list(marks), list(marks.values()))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("share of the requests")
    axes.set_ylabel("latency up to, ms")
    axes.legend(frameon=False)


def _plot_throughput(axes: Any, levels: Sequence[LevelResult]) -> None:
    for name, group in (
        ("concurrency", [level for level in levels if level.level.rate is None]),
        ("rate", [level for level in levels if level.level.rate is not None]),
    ):
        if not group:
            continue
        rates = [level.rate for level in group]
        values = [level.quantile(0.99) * 1e3 for level in group]
        ends = [level.p99_interval or (level.quantile(0.99),) * 2 for level in group]
        low = [value - end[0] * 1e3 for value, end in zip(values, ends, strict=True)]
        high = [end[1] * 1e3 - value for value, end in zip(values, ends, strict=True)]
        axes.errorbar(rates, values, yerr=[low, high], marker="o", capsize=3, label=name)
        for level, rate, value in zip(group, rates, values, strict=True):
            text = str(level.level.concurrency or f"{level.level.rate:g}")
            axes.annotate(text, (rate, value), xytext=(6, 6), textcoords="offset points")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("calls per second")
    axes.set_ylabel("p99 with its 95 % interval, ms")
    axes.legend(frameon=False)


def _plot_errors(axes: Any, levels: Sequence[LevelResult]) -> None:
    for level in levels:
        count = max(1, round(level.seconds))
        failed, edges = np.histogram(level.failed, count, (0, level.seconds))
        axes.stairs(failed / np.diff(edges), edges, label=level.level.label, baseline=None)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds since the begin of the level")
    axes.set_ylabel("failed requests per second")
    axes.legend(frameon=False)
