"""Trials: what is better, and the file."""

from __future__ import annotations

import pytest

from tests.tune.fake_runs import STUDY, batching, make_trial
from tfserving.errors import FailedPreconditionError, InvalidInputError, RepositoryError
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trials import Objective, TrialFile

TUNED = ServerSettings(batching(), intra_op_threads=1)


def read(path, study=STUDY):
    file = TrialFile(path, study)
    file.close()
    return file.trials


def write(path, *trials):
    file = TrialFile(path, STUDY)
    for trial in trials:
        file.append(trial)
    file.close()


def test_a_file_returns_the_trials_that_were_written(tmp_path):
    trials = [make_trial(TUNED, p99_interval=(0.01, 0.03)), make_trial(errors={"UNAVAILABLE: gone": 2})]
    write(tmp_path / "trials", *trials)
    assert read(tmp_path / "trials") == trials


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_an_unfinished_line_is_removed_wherever_it_breaks_off(tmp_path, cut):
    path = tmp_path / "trials"
    write(path, make_trial())
    whole = path.read_bytes()
    write(path, make_trial(TUNED))
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    assert read(path) == [make_trial()]
    assert path.read_bytes() == whole


def test_an_unfinished_first_line_is_removed(tmp_path):
    path = tmp_path / "trials"
    path.write_bytes(b'{"format": 1, "mod')
    assert read(path) == []
    assert read(path) == []


def test_rejects_trials_of_another_study(tmp_path):
    write(tmp_path / "trials")
    with pytest.raises(InvalidInputError, match="version 1, now 2; pass another --out directory"):
        read(tmp_path / "trials", {**STUDY, "version": 2})


def test_rejects_a_file_that_another_process_uses(tmp_path):
    file = TrialFile(tmp_path / "trials", STUDY)
    with pytest.raises(FailedPreconditionError, match="in use"):
        read(tmp_path / "trials")
    file.close()


@pytest.mark.parametrize("line", ["no JSON", "{}", "[]", '{"settings": 3}'])
def test_rejects_a_damaged_file(tmp_path, line):
    path = tmp_path / "trials"
    write(path)
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(RepositoryError, match="damaged"):
        read(path)


@pytest.mark.parametrize(
    ("trial", "headroom", "violation"),
    [
        (make_trial(p99=0.04), 0.1, ""),
        (make_trial(p99=0.047), 0.0, ""),
        (make_trial(p99=0.047), 0.1, "p99 47 ms is within 10% of 50 ms"),
        (make_trial(p99=0.051), 0.1, "p99 51 ms exceeds 50 ms"),
        (make_trial(failure="did not start"), 0.0, "did not start"),
        (make_trial(errors={"X: a": 1, "Y: b": 2}), 0.0, "3 of 100 requests failed, 2 with Y: b"),
    ],
)
def test_a_violation_has_the_reason(trial, headroom, violation):
    assert Objective(False, 0.050).violation(trial, headroom) == violation


def test_ranks_trials_by_the_objective():
    fast, slow = make_trial(rate=200.0, p99=0.04), make_trial(rate=100.0, p99=0.01)
    late, later = make_trial(rate=300.0, p99=0.06), make_trial(rate=300.0, p99=0.09)
    failed = make_trial(failure="did not start")
    trials = [fast, late, failed, slow, later]
    ranked = [failed, later, late, slow, fast]
    assert sorted(trials, key=Objective(False, 0.050).rank) == ranked
    ranked = [failed, later, late, fast, slow]
    assert sorted(trials, key=Objective(True, 0.050).rank) == ranked
