"""The whole of a tuning, with measurements that are computed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.tune.fake_runs import OVERHEAD, FakeMachine, dense, make_space, make_trial, tune
from tfserving.errors import FailedPreconditionError
from tfserving.tune.confirmation import confirm
from tfserving.tune.server_settings import ServerSettings
from tfserving.tune.trials import Objective


def test_finds_the_best_settings_and_confirms_them_in_rounds_with_the_default(tmp_path):
    machine = FakeMachine()
    result = tune(machine, tmp_path / "trials")
    best = max(machine.made, key=lambda trial: trial.rate)
    assert result.settings == best.settings
    assert (best.settings.batching.max_batch_size, best.settings.batching.num_batch_threads) == (8, 2)
    assert best.settings.batching.batch_timeout_micros == 0
    confirmed = result.confirmed
    assert len(confirmed.default) == len(confirmed.tuned) == 5
    assert confirmed.gain == pytest.approx(2.0)
    order = [trial.settings == ServerSettings() for trial in machine.made if trial.phase == "confirm 1"]
    assert order == [True, False, False, True, True, False, False, True, True, False]


@pytest.mark.parametrize("budget", [30, 60, 120, 600, 3600])
def test_keeps_the_budget(tmp_path, budget):
    machine = FakeMachine()
    tune(machine, tmp_path / "trials", budget=budget)
    assert machine.now <= budget


def test_uses_the_time_that_it_has(tmp_path):
    machine = FakeMachine(lambda settings: make_trial(settings, rate=len(settings.label)))
    tune(machine, tmp_path / "trials")
    assert machine.now > 500


def test_continues_after_an_interrupt_without_repeating_a_trial(tmp_path):
    expected = tune(FakeMachine(), tmp_path / "whole")
    path, made = tmp_path / "trials", []
    for stop_after in (1, 5, 12):
        machine = FakeMachine(stop_after=stop_after)
        with pytest.raises(KeyboardInterrupt):
            tune(machine, path)
        made += machine.made
    machine = FakeMachine()
    result = tune(machine, path)
    made += machine.made
    assert result.settings == expected.settings
    assert [trial.key for trial in made] == [trial.key for trial in expected.trials]


def test_a_second_run_measures_nothing(tmp_path):
    first = tune(FakeMachine(), tmp_path / "trials")
    machine = FakeMachine()
    second = tune(machine, tmp_path / "trials")
    assert machine.made == []
    assert second.settings == first.settings


def test_a_larger_budget_continues_with_the_trials_that_exist(tmp_path):
    tune(FakeMachine(), tmp_path / "trials", budget=300)
    machine = FakeMachine()
    tune(machine, tmp_path / "trials", budget=600)
    assert 100 < machine.now <= 300
    assert len({trial.key for trial in machine.made}) == len(machine.made)


def test_continues_after_a_kill_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "trials"
    with pytest.raises(KeyboardInterrupt):
        tune(FakeMachine(stop_after=4), path)
    with path.open("ab") as file:
        file.write(b'{"settings": {"batc')
    machine = FakeMachine()
    tune(machine, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 1 + 4 + len(machine.made)


def test_a_short_trial_in_a_fast_phase_of_the_machine_does_not_win(tmp_path):
    def run(settings, phase, number, seconds):
        trial = FakeMachine.run(machine, settings, phase, number, seconds)
        is_fast = machine.now < 60 and settings.batching is None
        return replace(trial, rate=trial.rate * 3) if is_fast else trial

    machine = FakeMachine()
    machine.run = run
    result = tune(machine, tmp_path / "trials")
    assert result.settings.batching is not None


def test_keeps_the_default_if_nothing_is_better(tmp_path):
    machine = FakeMachine(lambda settings: make_trial(settings, rate=100 - len(settings.label)))
    result = tune(machine, tmp_path / "trials")
    assert result.settings == ServerSettings()
    assert "no other settings passed" in result.reason


def test_keeps_the_default_if_the_budget_is_too_short_to_confirm(tmp_path):
    result = tune(FakeMachine(), tmp_path / "trials", budget=4 * OVERHEAD)
    assert result.settings == ServerSettings()
    assert "too short" in result.reason


def test_settings_that_break_the_objective_are_not_chosen(tmp_path):
    # the fastest settings have a p99 of 40 ms and more
    result = tune(FakeMachine(), tmp_path / "trials", objective=Objective(False, 0.039))
    assert result.settings is None
    assert "p99" in result.reason


def test_latency_is_minimized_within_the_limit(tmp_path):
    result = tune(FakeMachine(), tmp_path / "trials", objective=Objective(True, 0.050))
    assert result.settings.batching.max_batch_size == 8


def test_a_finalist_that_is_slower_in_the_confirmation_is_replaced_by_the_next(tmp_path):
    found = []

    def run(settings, phase, number, seconds):
        trial = FakeMachine.run(machine, settings, phase, number, seconds)
        if phase == "confirm 1" and settings != ServerSettings():
            found.append(settings)
            trial = make_trial(settings, phase=phase, round=number, seconds=seconds, rate=200.0)
        return trial

    machine = FakeMachine()
    machine.run = run
    result = tune(machine, tmp_path / "trials", budget=900)
    first, second = result.confirmations
    assert first.settings == found[0]
    assert "not better" in first.refusal
    assert result.settings == second.settings != found[0]


def test_a_finalist_that_breaks_the_objective_in_a_round_is_refused_in_that_round(tmp_path):
    def run(settings, phase, number, seconds):
        trial = FakeMachine.run(machine, settings, phase, number, seconds)
        if phase == "confirm 1" and number == 1:
            trial = make_trial(settings, phase=phase, round=number, seconds=seconds, p99=0.3)
        return trial

    machine = FakeMachine()
    machine.run = run
    result = tune(machine, tmp_path / "trials", budget=900, objective=Objective(False, 0.2))
    first = result.confirmations[0]
    assert len(first.tuned) == 2
    assert first.refusal == "p99 300 ms exceeds 200 ms"
    assert result.settings == result.confirmations[1].settings


@pytest.mark.parametrize(
    ("p99s", "refusal"),
    [
        ((0.084, 0.112), ""),
        ((0.24,), "in round 1 of only 1"),
        ((0.1, 0.24), "in round 2 of only 2"),
        ((0.1, 0.1, 0.24), "its 95 % interval"),
        ((0.1, 0.1, 0.12), ""),
    ],
)
def test_few_rounds_are_judged_by_headroom_and_more_by_their_interval(p99s, refusal):
    tuned, limit = ServerSettings(intra_op_threads=1), 0.25

    def run(settings, phase, number):
        rate = 60.0 if settings == tuned else 50.0
        return make_trial(settings, phase=phase, round=number, rate=rate, p99=p99s[number])

    objective = Objective(False, limit)
    done = confirm(tuned, ServerSettings(), objective, run, phase="confirm 1", rounds=len(p99s))
    assert refusal in done.refusal if refusal else not done.refusal


def test_settings_that_fail_are_recorded_with_the_reason(tmp_path):
    def model(settings):
        if settings.batching is not None:
            return make_trial(settings, rate=0.0, failure="the server exited with code 255")
        return make_trial(settings, rate=100.0 + 50 * settings.intra_op_threads)

    result = tune(FakeMachine(model), tmp_path / "trials")
    assert result.settings.intra_op_threads == 1
    failed = [trial for trial in result.trials if trial.failure]
    assert failed
    assert all("code 255" in trial.failure for trial in failed)


def test_requests_that_fail_exclude_settings(tmp_path):
    def model(settings):
        errors = {"RESOURCE_EXHAUSTED: full": 3} if settings.batching is not None else {}
        return make_trial(settings, rate=100.0 + 50 * settings.intra_op_threads, errors=errors)

    result = tune(FakeMachine(model), tmp_path / "trials")
    assert result.settings.batching is None


def test_a_default_without_figures_is_measured_again_and_then_an_error(tmp_path):
    machine = FakeMachine(lambda settings: make_trial(settings, rate=0.0, failure="the generator was busy"))
    with pytest.raises(FailedPreconditionError, match="the generator was busy"):
        tune(machine, tmp_path / "trials")
    assert [trial.round for trial in machine.made] == [0, 1, 2]


def test_settings_that_keep_the_objective_are_better_than_a_default_that_breaks_it(tmp_path):
    def model(settings):
        is_one = settings.intra_op_threads == 1
        return make_trial(settings, rate=90.0 if is_one else 100.0, p99=0.02 if is_one else 0.08)

    result = tune(FakeMachine(model), tmp_path / "trials", objective=Objective(False, 0.05))
    assert result.settings.intra_op_threads == 1


def test_a_model_whose_requests_cannot_be_joined_is_tuned_without_batching(tmp_path):
    machine = FakeMachine()
    tune(machine, tmp_path / "trials", space=make_space(rows=None))
    assert all(trial.settings.batching is None for trial in machine.made)


def test_the_search_is_the_same_in_each_run(tmp_path):
    machines = FakeMachine(), FakeMachine()
    for number, machine in enumerate(machines):
        tune(machine, tmp_path / f"trials{number}")
    assert machines[0].made == machines[1].made
    assert dense(ServerSettings()).rate == 300.0
