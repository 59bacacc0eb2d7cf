"""Simulate how servers scale: python -m benchmarks.capacity [--quick] [--measure] [--out DIR]

Writes capacity.md, capacity.json, capacity.png and capacity-replicas.png to benchmarks/ or --out. The service
times and the measured run are those of capacity.json in benchmarks/; --measure measures them again first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.capacity import measure, study
from benchmarks.interrupts import run_interruptible
from benchmarks.report import output_directory

HERE = Path(__file__).parents[1]
NAME = "capacity"

PAGE = """# Capacity

`python -m benchmarks.capacity` writes this page; [the guide](../docs/guide/capacity.md) explains it. simpy
simulates calls that begin at random times, and servers that run one call at a time. Service times vary as
those of {count} calls, one after another, to an embedded server with a model that waits for {wait:.0f} ms:
mean {mean:.0f} ms, 99th percentile {tail:.0f} ms. {machine}.

## Simulated and measured

Up to four embedded servers with this model, one asyncio client with round robin, {calls} calls for each row.
A simulated percentile is the median of {runs} simulations, with the interval that has 90 % of them.

{comparison}

## Latency by number of servers

The 99th percentile of the latency, in mean service times, at {load:.0%} of the capacity of all servers.
∞: more than {unbounded} service times, and growing.

{growth}

![99th percentile by number of servers](capacity.png)

## Replicas

The smallest number of replicas for a mean service time of {service:.0f} ms, within 2 %, of which each is at
most {busy:.0%} busy. Empty: no number is enough.

{replicas}

![calls per second by number of replicas](capacity-replicas.png)
"""
# A longer latency grows with the length of the simulation.
UNBOUNDED = 50


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(prog="benchmarks.capacity", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="simulate briefly, only to check that it runs")
    parser.add_argument("--measure", action="store_true", help="measure service times and latencies first")
    out = "where to write (default: benchmarks)"
    parser.add_argument("--out", type=output_directory, default=HERE, metavar="DIR", help=out)
    arguments = parser.parse_args()
    calls, runs = (400, 5) if arguments.quick else (10_000, 200)
    sizes, rates = (study.SIZES[:3], study.RATES[:2]) if arguments.quick else (study.SIZES, study.RATES)
    if arguments.measure:
        found = measure.run(arguments.quick)
    else:
        found = json.loads((HERE / f"{NAME}.json").read_text(encoding="utf-8"))["measured"]
    service_times = found["service_times"]
    results = {
        "measured": found,
        "comparison": study.compare_with_measurement(found, runs),
        "growth": study.grow(service_times, sizes, calls),
        "replicas": study.count_replicas(service_times, rates, calls),
    }
    write(arguments.out / NAME, results, runs)
    return 0


def write(path: Path, results: dict[str, Any], runs: int) -> None:
    """Write the results to `path` with .json and .md, and the charts."""
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    found = results["measured"]
    times = found["service_times"]
    text = PAGE.format(
        count=len(times),
        mean=1000 * sum(times) / len(times),
        tail=1000 * times[int(len(times) * 0.99)],
        machine=", ".join(f"{name} {value}" for name, value in found["machine"].items()),
        wait=1000 * measure.WAIT_SECONDS,
        calls=found["runs"][0]["calls"],
        runs=runs,
        comparison=table_of_comparison(results["comparison"]),
        load=study.LOAD,
        unbounded=UNBOUNDED,
        growth=table_of_growth(results["growth"]),
        busy=study.MAX_BUSY,
        service=1000 * study.MEAN,
        replicas=table_of_replicas(results["replicas"]),
    )
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    plot_growth(results["growth"], path.with_suffix(".png"))
    plot_replicas(results["replicas"], path.with_name(f"{path.name}-replicas.png"))


def table_of_comparison(rows: Sequence[dict[str, Any]]) -> str:
    """Format a row for each measured run."""
    cells = []
    for row in rows:
        line = [str(row["servers"]), f"{row['load']:.0%}"]
        for percent in ("p50", "p99"):
            one = row[percent]
            low, high = one["interval"]
            inside = low <= one["measured"] <= high
            line.append(f"{1000 * one['measured']:.0f} ms{'' if inside else ' ✗'}")
            line.append(f"{1000 * one['simulated']:.0f} ms ({1000 * low:.0f} to {1000 * high:.0f})")
        cells.append(line)
    head = ["servers", "load", "median: measured", "simulated", "99th percentile: measured", "simulated"]
    return format_table(head, cells) + "\n\n✗: outside the interval."


def table_of_growth(rows: Sequence[dict[str, Any]]) -> str:
    """Format a row for each policy, with a column for each number of servers."""
    sizes = sorted({row["servers"] for row in rows})
    cells = []
    for policy, who in study.CHOICES:
        tails = {row["servers"]: row["p99"] for row in rows if is_of(row, policy, who)}
        cells.append([policy, who, *(format_tail(tails[size]) for size in sizes)])
    return format_table(["policy", "chosen by", *(f"{size:,}" for size in sizes)], cells)


def is_of(row: dict[str, Any], policy: str, who: str) -> bool:
    """Return whether the row is for this policy."""
    return (row["policy"], row["who"]) == (policy, who)


def format_tail(value: float) -> str:
    """Format mean service times."""
    return "∞" if value > UNBOUNDED else f"{value:.1f}"


def table_of_replicas(rows: Sequence[dict[str, Any]]) -> str:
    """Format a row for each rate and limit, with a column for each policy."""
    cells = []
    for rate, limit in sorted({(row["rate"], row["limit"]) for row in rows}):
        line = [f"{rate:,}", f"{1000 * limit:.0f} ms"]
        for policy, who in study.RECOMMENDED:
            key = (rate, limit, policy, who)
            (one,) = (row for row in rows if (row["rate"], row["limit"], row["policy"], row["who"]) == key)
            line.append("" if one["replicas"] is None else f"{one['replicas']:,}")
        cells.append(line)
    policies = [f"{policy}, {who}" for policy, who in study.RECOMMENDED]
    return format_table(["calls/s", "p99 ≤", *policies], cells)


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot_growth(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the 99th percentile by number of servers, a line for each policy."""
    figure, axes = new_plot()
    for policy, who in study.CHOICES:
        points = [(row["servers"], row["p99"]) for row in rows if is_of(row, policy, who)]
        style = {"linestyle": "-" if who == study.GATEWAYS else "--", "label": f"{policy}, {who}"}
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(1, UNBOUNDED)
    axes.set_xlabel(f"servers, each {study.LOAD:.0%} busy")
    axes.set_ylabel("99th percentile, in mean service times")
    save_plot(figure, axes, path)


def plot_replicas(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the calls per second of each replica by number of replicas, at one limit."""
    figure, axes = new_plot()
    limit = study.LIMITS[1] * study.MEAN
    for policy, who in study.RECOMMENDED:
        key = (policy, who, limit)
        chosen = [row for row in rows if (row["policy"], row["who"], row["limit"]) == key and row["replicas"]]
        points = [(row["replicas"], row["rate"] / row["replicas"]) for row in chosen]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"{policy}, {who}")
    axes.axhline(1 / study.MEAN, color="#999999", linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.05 / study.MEAN)
    axes.set_xlabel(f"replicas, 99th percentile within {1000 * limit:.0f} ms")
    axes.set_ylabel("calls per second of each replica")
    save_plot(figure, axes, path)


def new_plot() -> tuple[Any, Any]:
    """Return a figure and its axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(10, 4.5))


def save_plot(figure: Any, axes: Any, path: Path) -> None:
    """Write the figure as PNG."""
    from matplotlib import pyplot

    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
