"""tfserving history"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tfserving.cli.show_history import main
from tfserving.release.history import DONE, REVERTED, History, HistoryRecord, ModelState

pytestmark = pytest.mark.usefixtures("in_repository", "only_named_servers")


@pytest.fixture
def history():
    """Three changes of two models."""
    before = ModelState((1,), {}, 1)
    during = ModelState((1, 2), {"canary": 2, "stable": 1}, 2)
    changes = [("a", "add", None, before, DONE), ("a", "canary", before, during, REVERTED)]
    changes.append(("b", "remove", before, None, DONE))
    history = History(Path("models"))
    for number, (model, operation, old, new, result) in enumerate(changes):
        time = f"2026-01-0{number + 1}T12:00:00+00:00"
        command = f"tfserving {operation}"
        record = HistoryRecord(
            f"id{number}", time, "ann", command, "try it", operation, model, old, new, "", (), result
        )
        history.append(record)


def test_prints_a_table(run, history):
    status, out, err = run(main)
    assert (status, err) == (0, "")
    header, *rows = (re.split(r"  +", line) for line in out.splitlines())
    assert header == ["TIME", "USER", "OPERATION", "MODEL", "BEFORE", "AFTER", "RESULT", "MESSAGE"]
    assert [row[1:] for row in rows] == [
        ["ann", "add", "a", "-", "1*", "done", "try it"],
        ["ann", "canary", "a", "1*", "1, 2* canary=2 stable=1", "reverted", "try it"],
        ["ann", "remove", "b", "1*", "-", "done", "try it"],
    ]
    assert rows[0][0].startswith(("2026-01-01 ", "2026-01-02 "))


def test_prints_the_changes_of_one_model_as_json(run, history):
    changes = json.loads(run(main, "a", "--json")[1])["changes"]
    assert [change["id"] for change in changes] == ["id0", "id1"]
    assert changes[1]["after"] == {"versions": [1, 2], "labels": {"canary": 2, "stable": 1}, "promoted": 2}
    changes = json.loads(run(main, "a", "--json", "--limit=1")[1])["changes"]
    assert [change["id"] for change in changes] == ["id1"]


def test_prints_an_empty_table_without_a_history(run):
    assert run(main)[:2] == (0, "TIME  USER  OPERATION  MODEL  BEFORE  AFTER  RESULT  MESSAGE\n")


def test_rejects_a_damaged_history_and_an_invalid_limit(run):
    Path("models/.history.jsonl").write_text("{}\n")
    status, _, err = run(main)
    assert (status, "models/.history.jsonl:1: not a record of a change" in err) == (2, True)
    assert run(main, "--limit=0")[0] == 2
