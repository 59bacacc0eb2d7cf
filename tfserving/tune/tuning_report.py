"""The report of a tuning: as JSON values, and as an HTML page with charts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfserving.bench.html_page import as_page, draw_chart
from tfserving.bench.load_results import describe_run, format_rate, format_seconds
from tfserving.bench.quantiles import Interval
from tfserving.tune.confirmation import Confirmation, p99_of, rate_of
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trials import HEADROOM, Objective, Trial
from tfserving.tune.tuning import TuningResult


@dataclass(frozen=True)
class TuningReport:
    """A result, and what it holds for.

    Attributes:
        study: the model, the engine and the load, as JSON values.
        workload: the requests, for people.
        budget: in seconds.
    """

    study: Mapping[str, Any]
    workload: str
    objective: Objective
    budget: float
    result: TuningResult

    @property
    def title(self) -> str:
        """What was tuned."""
        study = self.study
        model = f"{study['model']} version {study['version']}"
        return f"{model}, {study['engine']} engine, {study['callers']} callers ({study['api']})"

    @property
    def goal(self) -> str:
        """The objective, for people."""
        limit = self.objective.p99_limit
        kept = "" if limit is None else f", p99 at most {limit * 1e3:g} ms"
        return f"{'lowest p99' if self.objective.is_latency else 'highest throughput'}{kept}"

    def as_json(self) -> dict[str, Any]:
        """This as JSON values; times are in seconds."""
        result, objective = self.result, self.objective
        return {
            **describe_run(),
            **self.study,
            "workload": self.workload,
            "objective": {
                "name": "latency" if objective.is_latency else "throughput",
                "p99_limit": objective.p99_limit,
            },
            "budget": self.budget,
            "seconds": result.seconds,
            "settings": None if result.settings is None else _settings_json(result.settings),
            "reason": result.reason,
            "confirmations": [_confirmation_json(each) for each in result.confirmations],
            "trials": [
                {**trial.as_json(), "label": trial.settings.label, "violation": objective.violation(trial)}
                for trial in result.trials
            ],
        }

    def as_text(self) -> str:
        """The result for people: a heading, the default beside the best, and the gain."""
        lines = [self.title, self.workload, self.goal, ""]
        confirmed = self.result.confirmed
        if confirmed is not None:
            lines += _comparison_lines(confirmed)
        elif self.result.settings is not None:
            lines.append(f"keep the default settings: {self.result.reason}")
        else:
            lines.append(f"no settings keep the objective: {self.result.reason}")
        lines += [
            f"refused: {each.settings.label}: {each.refusal}"
            for each in self.result.confirmations
            if each.refusal
        ]
        return "\n".join(lines)

    def as_html(self) -> str:
        """The page.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        parts = [f"<p>{html.escape(self.workload)}; {html.escape(self.goal)}</p>"]
        parts.append(f"<pre>{html.escape(self.as_text())}</pre>")
        shown = [trial for trial in self.result.trials if trial.rate]
        if shown:
            parts += ["<h2>Throughput and p99 of all trials</h2>", draw_chart(_plot_trials, (self, shown))]
        if self.result.confirmations:
            parts += ["<h2>Confirmation</h2>", draw_chart(_plot_rounds, self.result.confirmations)]
        parts += ["<h2>All trials</h2>", self._table()]
        return as_page(f"Tuning of {self.title}", parts, self.as_json())

    def _table(self) -> str:
        heads = ("settings", "phase", "seconds", "calls/s", "p50", "p99", "remark")
        rows = ["".join(f"<th>{head}</th>" for head in heads)]
        for trial in self.result.trials:
            remark = self.objective.violation(trial, HEADROOM)
            cells = [
                trial.settings.label,
                trial.phase,
                f"{trial.seconds:g}",
                *(
                    (format_rate(trial.rate), *map(format_seconds, (trial.p50, trial.p99)))
                    if trial.rate
                    else "–––"
                ),
            ]
            columns = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            rows.append(f'{columns}<td class="refused">{html.escape(remark)}</td>')
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _comparison_lines(confirmed: Confirmation) -> list[str]:
    rows = [["", "calls/s", "p99", "p99, 95 % interval", "rounds"]]
    for label, trials in (("default", confirmed.default), ("tuned", confirmed.tuned)):
        rate, p99 = rate_of(trials), p99_of(trials)
        if rate is None or p99 is None:
            rows.append([label, "–", "–", "–", "0"])
            continue
        value, interval = p99
        limits = "–" if interval is None else " to ".join(map(format_seconds, interval))
        count = sum(bool(trial.rate) for trial in trials)
        rows.append([label, format_rate(rate), format_seconds(value), limits, str(count)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    lines += ["", f"tuned: {confirmed.settings.label}"]
    if confirmed.gain is not None:
        interval = confirmed.gain_interval
        sure = "" if interval is None else f" (95 % interval: {interval.low:.2f} to {interval.high:.2f})"
        lines.append(f"throughput: {confirmed.gain:.2f} times that of the default{sure}")
    return [line.rstrip() for line in lines]


def _settings_json(settings: ServerSettings) -> dict[str, Any]:
    batching = None if settings.batching is None else settings.batching.text
    return {
        **settings.as_json(),
        "label": settings.label,
        "flags": settings.flags,
        "batching_config": batching,
    }


def _confirmation_json(each: Confirmation) -> dict[str, Any]:
    return {
        "settings": _settings_json(each.settings),
        "refusal": each.refusal or None,
        "gain": each.gain,
        "gain_interval": _interval_json(each.gain_interval),
        "default": _summary_json(each.default),
        "tuned": _summary_json(each.tuned),
    }


def _summary_json(trials: Sequence[Trial]) -> dict[str, Any]:
    p99, interval = p99_of(trials) or (None, None)
    return {
        "rate": rate_of(trials),
        "p99": p99,
        "p99_interval": _interval_json(interval),
        "rates": [trial.rate for trial in trials],
    }


def _interval_json(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _plot_trials(axes: Any, data: tuple[TuningReport, Sequence[Trial]]) -> None:
    report, trials = data
    groups = {
        "default": [trial for trial in trials if trial.settings == ServerSettings()],
        "tuned": [],
        "others": [],
    }
    for trial in trials:
        if trial.settings != ServerSettings():
            groups["tuned" if trial.settings == report.result.settings else "others"].append(trial)
    for (label, group), color in zip(groups.items(), ("#4c78a8", "#e45756", "#999999"), strict=True):
        if group:
            rates = [trial.rate for trial in group]
            axes.scatter(rates, [trial.p99 * 1e3 for trial in group], label=label, color=color)
    if report.objective.p99_limit is not None:
        axes.axhline(report.objective.p99_limit * 1e3, color="#a00", linestyle="--", label="limit of p99")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("calls per second")
    axes.set_ylabel("p99, ms")
    axes.legend(frameon=False)


def _plot_rounds(axes: Any, confirmations: Sequence[Confirmation]) -> None:
    for number, each in enumerate(confirmations, 1):
        name = f"finalist {number}{' (refused)' * bool(each.refusal)}"
        for label, trials in ((f"default beside {name}", each.default), (name, each.tuned)):
            rounds = [trial.round + 1 for trial in trials]
            axes.plot(rounds, [trial.rate for trial in trials], marker="o", label=label)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("round")
    axes.set_ylabel("calls per second")
    axes.legend(frameon=False)
