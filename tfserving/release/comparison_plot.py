"""A chart of a comparison: the values of each output against each other, and the latencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError
from tfserving.release.comparison import Comparison
from tfserving.wire.dtypes import Array

_MAX_OUTPUTS = 6
# More points take long to draw and show no more.
_MAX_POINTS = 5000
_COLORS = ("#4c78a8", "#e45756")


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Write a PNG: for each numeric output (the first six) one panel, and one for the latencies.

    Needs matplotlib, which is imported here.

    Raises:
        InvalidInputError: the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [one.name for one in comparison.outputs if one.largest is not None][:_MAX_OUTPUTS]
    figure, axes = pyplot.subplots(1, len(names) + 1, figsize=(4.2 * (len(names) + 1), 4), squeeze=False)
    try:
        for name, panel in zip(names, axes[0], strict=False):
            _plot_output(panel, comparison, name)
        _plot_latencies(axes[0][-1], comparison)
        figure.suptitle(f"{comparison.model}: {comparison.runs[0].target} and {comparison.runs[1].target}")
        figure.tight_layout()
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        pyplot.close(figure)


def _plot_output(panel: Any, comparison: Comparison, name: str) -> None:
    first, second = (_collect_values(comparison, index, name) for index in (0, 1))
    panel.scatter(first, second, s=8, color=_COLORS[0], alpha=0.5, linewidths=0)
    panel.axline((0, 0), slope=1, color=_COLORS[1], linewidth=1)
    panel.set_title(f"output {name}")
    panel.set_xlabel(str(comparison.runs[0].target))
    panel.set_ylabel(str(comparison.runs[1].target))


def _plot_latencies(panel: Any, comparison: Comparison) -> None:
    """The share of requests that took at most a time, for each version."""
    for run, color in zip(comparison.runs, _COLORS, strict=True):
        if run.seconds:
            milliseconds = 1000 * np.sort(run.seconds)
            share = np.arange(1, len(milliseconds) + 1) / len(milliseconds)
            panel.step(milliseconds, share, where="post", color=color, label=str(run.target))
    if any(run.seconds for run in comparison.runs):
        panel.legend()
    panel.set_title("latency")
    panel.set_xlabel("ms")
    panel.set_ylabel("share of requests")


def _collect_values(comparison: Comparison, index: int, name: str) -> Array:
    parts = []
    for one, other in zip(comparison.runs[0].responses, comparison.runs[1].responses, strict=True):
        if isinstance(one, str) or isinstance(other, str) or name not in one or name not in other:
            continue
        if one[name].shape == other[name].shape:
            parts.append(_as_float((one, other)[index][name]))
    values = np.concatenate(parts) if parts else np.empty(0)
    return values[:: max(1, len(values) // _MAX_POINTS)]


def _as_float(array: Array) -> Array:
    """The values as float64, complex ones as their absolute values, quantized ones as integers."""
    if array.dtype.names is not None:
        array = array.view(array.dtype[0])
    return np.abs(array).ravel() if array.dtype.kind == "c" else array.astype(np.float64).ravel()
