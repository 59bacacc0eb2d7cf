"""tfserving watch: a live table of servers, models, versions, calls, errors and latencies."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from typing import Any

from tfserving.cli.command import FAILED, new_parser, run_command
from tfserving.cli.connection_options import parse_seconds
from tfserving.cli.release_options import ReleaseOptions, print_json, read_release_options
from tfserving.cli.snapshots import (
    add_snapshot_options,
    connect_required,
    labels_of,
    read_snapshots,
    snapshot_document,
)
from tfserving.cli.text_table import print_table
from tfserving.errors import InvalidInputError
from tfserving.release.served_models import ServerSnapshot
from tfserving.release.server_metrics import CallRates, MetricsReading, compare_readings, find_metrics
from tfserving.release.servers import ServerConnections

_HEADER = (
    "SERVER",
    "MODEL",
    "VERSION",
    "STATE",
    "DEFAULT",
    "LABELS",
    "CALLS/S",
    "ERRORS",
    "P50 MS",
    "P99 MS",
)
_INTERVAL = 2.0

# By model and version; None for a server without metrics.
_Rates = Mapping[tuple[str, str], CallRates] | None


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving watch") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Shows a live table of the models on each server: versions, states and labels and, where the metrics "
        "of a server are on (MONITORING_CONFIG_FILE), calls per second, the share of calls that fail on the "
        "server's side, and the 50th and 99th percentile of the latency, over the last interval. The "
        "embedded server has them also by version. Ctrl-C stops the command with exit status 0.",
        f"examples:\n  {prog}\n  {prog} --server 127.0.0.1:8500 --interval 5\n  {prog} --once --json\n",
    )
    add_snapshot_options(parser)
    parser.add_argument(
        "--interval",
        type=parse_seconds,
        metavar="SECONDS",
        default=_INTERVAL,
        help=f"seconds between two readings (default: {_INTERVAL:g})",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="print one table, with the calls of one interval, and exit: with 1 if a server does not respond",
    )
    return run_command(parser, argv, _watch, extra="release")


def _watch(arguments: argparse.Namespace) -> int | None:
    options = read_release_options(arguments)
    if options.json and not arguments.once:
        raise InvalidInputError("--json needs --once: a live table is not a JSON document")
    with connect_required(options) as connections:
        watched = _WatchedServers(connections, options)
        if not arguments.once:
            _show_live(watched, arguments.interval)
            return None
        time.sleep(arguments.interval)
        found = watched.read()
    if options.json:
        print_json({"interval": arguments.interval, "servers": [_document(*each) for each in found]})
    else:
        print_table(_HEADER, (row for each in found for row in _rows(*each)))
    return FAILED if any(snapshot.error for snapshot, _ in found) else None


class _WatchedServers:
    """Servers, and the last reading of their metrics."""

    def __init__(self, connections: ServerConnections, options: ReleaseOptions) -> None:
        self._connections = connections
        self._options = options
        self._last = self._read_metrics()

    def read(self) -> list[tuple[ServerSnapshot, _Rates]]:
        """What each server serves now, and the calls since the last reading."""
        snapshots = read_snapshots(self._connections, self._connections.servers, self._options)
        last, self._last = self._last, self._read_metrics()
        return [
            (snapshot, None if after is None else compare_readings(before or after, after))
            for snapshot, before, after in zip(snapshots, last, self._last, strict=True)
        ]

    def _read_metrics(self) -> list[MetricsReading | None]:
        servers = self._connections.servers
        with ThreadPoolExecutor(max_workers=len(servers)) as pool:
            timeout = self._options.timeout
            return list(pool.map(lambda server: find_metrics(server.rest, timeout=timeout), servers))


def _show_live(watched: _WatchedServers, interval: float) -> None:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def make_table() -> Table:
        table = Table(title=f"{datetime.now():%H:%M:%S}, every {interval:g} s", title_justify="left")
        for name in _HEADER:
            table.add_column(name, justify="right" if name in _HEADER[-4:] or name == "VERSION" else "left")
        for snapshot, rates in watched.read():
            for row in _rows(snapshot, rates):
                # Text: names may contain what rich takes for markup.
                table.add_row(*(Text(str(cell)) for cell in row))
            table.add_section()
        return table

    try:
        with Live(make_table(), auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(interval)
                live.update(make_table(), refresh=True)
    except KeyboardInterrupt:
        return


def _rows(snapshot: ServerSnapshot, rates: _Rates) -> Iterator[tuple[object, ...]]:
    """A row for each model, with its calls as a whole, and one for each version that is not unloaded."""
    server = str(snapshot.server)
    if snapshot.error:
        yield server, "-", "-", "does not respond", *[""] * 6
        return
    for model in snapshot.models.values():
        yield server, model.name, "all", "", "", "", *_rate_cells(rates, model.name)
        for each in model.versions:
            if each.state == "END" and not each.error_message:
                continue
            default = "yes" if each.version == model.default else ""
            labels = ",".join(labels_of(model, each.version))
            state = f"{each.state} (failed)" if each.error_message else each.state
            cells = _rate_cells(rates, model.name, str(each.version))
            yield server, model.name, each.version, state, default, labels, *cells


def _rate_cells(rates: _Rates, model: str, version: str = "") -> tuple[str, str, str, str]:
    """Calls/s, error rate, p50 and p99; "-" for what is not known, or does not exist without a call."""
    found = rates.get((model, version)) if rates else None
    if found is None:
        return "-", "-", "-", "-"
    errors = "-" if found.error_rate is None else f"{found.error_rate:.1%}"
    p50, p99 = ("-" if each is None else f"{each * 1000:.1f}" for each in (found.p50, found.p99))
    return f"{found.calls_per_second:.1f}", errors, p50, p99


def _document(snapshot: ServerSnapshot, rates: _Rates) -> dict[str, Any]:
    """As in status, with `metrics` for each model and version; null where they are not known."""
    document = snapshot_document(snapshot)
    for model in document["models"]:
        model["metrics"] = _rates_document(rates, model["name"])
        for version in model["versions"]:
            version["metrics"] = _rates_document(rates, model["name"], str(version["version"]))
    return document


def _rates_document(rates: _Rates, model: str, version: str = "") -> dict[str, float | None] | None:
    found = rates.get((model, version)) if rates else None
    return asdict(found) if found else None
