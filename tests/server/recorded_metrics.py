"""The metrics recorded from tensorflow_model_server."""

import csv
from pathlib import Path

# Both servers list these, but here they never have a value.
NEVER_SET = frozenset({":tensorflow:serving:mlmd_map", ":tensorflow:serving:request_log_count"})


def recorded_metrics():
    """A row for each metric: its name, type and labels."""
    with (Path(__file__).parents[1] / "conformance" / "metrics.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))
