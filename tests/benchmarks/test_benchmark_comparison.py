"""The comparison of the benchmarks of two checkouts, with fake suites."""

import json
import sys

import pytest

from benchmarks import compare

# Records that it ran, and writes the rows of its checkout, with the number of the run as the ratio.
SUITE = """
import json, pathlib, sys
log = pathlib.Path("..", "log")
with log.open("a") as file:
    file.write(pathlib.Path.cwd().name + " " + " ".join(sys.argv[3:]) + "\\n")
rows = json.loads(pathlib.Path("rows.json").read_text())
for row in rows:
    row["ratio"] += log.read_text().count(pathlib.Path.cwd().name)
pathlib.Path(sys.argv[2], "client.json").write_text(json.dumps({"rows": rows}))
"""


def make_row(what, ratio=1.0, measured="2 ms against 1 ms", at_least=False):
    return {"what": what, "baseline": "none", "ratio": ratio, "measured": measured, "at_least": at_least}


def make_checkout(directory, *rows):
    (directory / "benchmarks").mkdir(parents=True)
    (directory / "benchmarks" / "client.py").write_text(SUITE)
    (directory / "rows.json").write_text(json.dumps(rows))
    return directory


def test_runs_the_suites_of_both_checkouts_alternately(tmp_path):
    checkouts = [
        make_checkout(tmp_path / name, make_row("row", ratio)) for name, ratio in (("a", 1), ("b", 2))
    ]
    these, others = compare.run_alternately(checkouts, "client", 2, ["--quick"])
    assert (tmp_path / "log").read_text().splitlines() == ["a --quick", "b --quick"] * 2
    assert [rows[0]["ratio"] for rows in these] == [2, 3]
    assert [rows[0]["ratio"] for rows in others] == [3, 4]


def test_the_command_writes_a_table_and_json(tmp_path, monkeypatch, capsys):
    this, other = (
        make_checkout(tmp_path / name, make_row("row", ratio)) for name, ratio in (("a", 4), ("b", 1))
    )
    monkeypatch.setattr(compare, "ROOT", this)
    command = ["compare", str(other), "--rounds=1", "--suite=client", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", command)
    assert compare.main() == 0
    table = (tmp_path / "compare.md").read_text()
    assert table in capsys.readouterr().out
    assert "| row, against none: ratio | 5 (5) | 2 (2) | 2.500 ✗ |" in table
    ratio, measured = json.loads((tmp_path / "compare.json").read_text())
    assert (ratio["this"], ratio["other"], ratio["quotient"], ratio["is_worse"]) == ([5.0], [2.0], 2.5, True)
    assert (measured["this"], measured["quotient"], measured["is_worse"]) == ([0.002], 1.0, False)


def test_divides_the_medians_of_all_runs():
    these = [[make_row("row", ratio)] for ratio in (1.0, 9.0, 2.0)]
    others = [[make_row("row", ratio)] for ratio in (4.0, 5.0, 0.1)]
    ratio = compare.compare(these, others)[0]
    assert (ratio.this, ratio.other, ratio.quotient) == ([1.0, 9.0, 2.0], [4.0, 5.0, 0.1], 0.5)


@pytest.mark.parametrize(
    ("this", "other", "at_least", "is_worse"),
    [
        (1.06, 1.0, False, True),
        (1.04, 1.0, False, False),
        (0.5, 1.0, False, False),
        (0.94, 1.0, True, True),
        (0.96, 1.0, True, False),
        (2.0, 1.0, True, False),
        (1.0, 0.0, False, False),
        (1.0, -1.0, False, False),
    ],
)
def test_marks_a_row_that_is_worse_by_more_than_5_percent(this, other, at_least, is_worse):
    these, others = ([[make_row("row", ratio, at_least=at_least)]] for ratio in (this, other))
    assert compare.compare(these, others)[0].is_worse is is_worse


def names(these, others):
    rows, other_rows = ([[make_row(name) for name in side]] for side in (these, others))
    return [one.name for one in compare.compare(rows, other_rows) if one.name.endswith(": ratio")]


def test_pairs_rows_by_name_in_any_order():
    assert names(["a of 1.0 s", "b"], ["b", "a of 1.1 s"]) == [
        "a of N s, against none: ratio",
        "b, against none: ratio",
    ]


def test_pairs_renamed_rows_in_their_order():
    assert names(["new", "b", "newer"], ["old", "older", "b"]) == [
        "new, against none (was: old): ratio",
        "b, against none: ratio",
        "newer, against none (was: older): ratio",
    ]


def test_drops_rows_without_a_counterpart():
    assert names(["new", "b"], ["b"]) == ["b, against none: ratio"]
    assert names(["b"], ["b", "old"]) == ["b, against none: ratio"]


@pytest.mark.parametrize(
    ("measured", "value"),
    [
        ("401 µs against 383 µs", 401e-6),
        ("3,056 against 1,660", 3056.0),
        ("median 1.6 ms, 99 of 100 12.7 ms", 1.6e-3),
        ("3.5 s against 1 s", 3.5),
        ("1038 MB to 1042 MB", 1038.0),
        ("100 MB", 100.0),
    ],
)
def test_reads_the_first_quantity_of_the_measured_value(measured, value):
    rows = [[make_row("row", measured=measured)]]
    assert compare.compare(rows, rows)[1].this == [pytest.approx(value)]


def test_skips_a_measured_value_without_a_quantity():
    rows = [[make_row("row", measured="False")]]
    assert [one.name for one in compare.compare(rows, rows)] == ["row, against none: ratio"]
