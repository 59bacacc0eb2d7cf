"""The results of benchmarks.tune: what is kept of a tuning, and the pages that are written from it."""

import json
import shutil
import sys

import pytest

from benchmarks import tune as command
from benchmarks.report import Row
from benchmarks.tune_results import (
    GUIDE_PAGES,
    format_page,
    read_results,
    replace_tables,
    summarize,
    update_guide,
)
from tests.embedded import ROOT
from tests.tune.fake_runs import OVERHEAD, STUDY, FakeMachine, dense, make_trial, tune
from tfserving.tune.trials import Objective
from tfserving.tune.tuning_report import TuningReport

BENCHMARKS, GUIDE = ROOT / "benchmarks", ROOT / "docs" / "guide"


def make_result(name, **values):
    case = command.CASES[name]
    row = Row(f"requests per second, {case.name}", "default", "84 against 43", 1.95, 1.25, True)
    return {
        "model": case.name,
        "callers": case.callers,
        "p99_limit": case.p99_ms / 1e3,
        "measured": "2026-01-02 03:04",
        "commit": "abc1234",
        "budget": "5m",
        "rounds": 2,
        "seconds": 60.0,
        "settings": "intra-op 1",
        "reason": "the best settings that were confirmed",
        "default": {"rate": 43.0, "p99": 0.158},
        "tuned": {"rate": 1234.5, "p99": 0.0701},
        "gain": 1.95,
        "gain_interval": [1.5, 2.5],
        "rows": [row.as_json()],
        "machine": {"cores": 2, "load average at the start": 0.12},
        **values,
    }


DEFAULT_STAYS = {"settings": "default", "tuned": None, "gain": None, "gain_interval": None}


def test_the_guide_has_the_tables_of_the_committed_results(tmp_path):
    for page in GUIDE_PAGES:
        shutil.copy(GUIDE / page.name, tmp_path)
    update_guide(read_results(BENCHMARKS), tmp_path)
    for page in GUIDE_PAGES:
        assert (tmp_path / page.name).read_text() == (GUIDE / page.name).read_text()


def test_the_committed_page_has_the_committed_results():
    assert format_page(read_results(BENCHMARKS)) == (BENCHMARKS / "tune.md").read_text()


def test_the_committed_results_are_those_of_the_cases():
    results = read_results(BENCHMARKS)
    assert [name for name in command.CASES if name in results] == list(results)
    for name, one in results.items():
        case = command.CASES[name]
        assert (one["model"], one["callers"]) == (case.name, case.callers)
        assert one["p99_limit"] == case.p99_ms / 1e3


@pytest.mark.parametrize(
    ("page", "gain"),
    zip(GUIDE_PAGES, ["1.95 (1.50 to 2.50)", "1.95（1.50 到 2.50）"], strict=True),
    ids=[page.name for page in GUIDE_PAGES],
)
def test_tables_have_a_row_for_each_model(page, gain):
    results = {"mlp": make_result("mlp"), "trivial": make_result("trivial", **DEFAULT_STAYS)}
    text = replace_tables((GUIDE / page.name).read_text(), page, results)
    assert f"\n| MLP 784-512-256-10 | 16 | 50 ms | 43 | 158 ms | 1,234 | 70.1 ms | {gain} |\n" in text
    assert "\n| y = x / 2 + 2 | 8 | 25 ms | 43 | 158 ms | – | – | – |\n" in text
    assert "\n| y = x / 2 + 2 | default | 5m | 2026-01-02 03:04 | abc1234 | 0.12 |\n" in text
    assert "ResNet50 | 4 |" not in text


def report_of(model, path, **values):
    return TuningReport(
        STUDY, "1 request", Objective(False), 600.0, tune(FakeMachine(model), path, **values)
    ).as_json()


def test_keeps_the_figures_of_the_confirmation(tmp_path):
    report = report_of(dense, tmp_path / "trials")
    found = summarize(report)
    assert found["settings"] == report["settings"]["label"] != "default"
    assert found["default"] == {"rate": 300.0, "p99": pytest.approx(0.1)}
    assert found["tuned"]["rate"] == pytest.approx(600.0)
    assert found["gain"] == pytest.approx(2.0)
    assert found["gain_interval"] == pytest.approx([2.0, 2.0])


def test_the_default_has_its_figures_if_no_settings_are_better(tmp_path):
    report = report_of(
        lambda settings: make_trial(settings, rate=100 - len(settings.label)), tmp_path / "trials"
    )
    assert report["confirmations"]
    assert summarize(report) == {
        **DEFAULT_STAYS,
        "reason": report["reason"],
        "default": {"rate": 93.0, "p99": 0.02},
    }


def test_the_default_has_its_figures_if_the_budget_is_too_short_for_others(tmp_path):
    report = report_of(dense, tmp_path / "trials", budget=2 * OVERHEAD)
    assert not report["confirmations"]
    assert summarize(report)["default"] == {"rate": 300.0, "p99": 0.1}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the command with measurements that are made up; returns its exit status."""

    def run_command(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["tune", f"--models-dir={tmp_path}", f"--out={tmp_path}", *arguments]
        )
        return command.main()

    monkeypatch.setattr(command, "measure_model", lambda name, *_: make_result(name))
    return run_command


def test_measuring_a_model_keeps_the_results_of_the_others(run, tmp_path):
    assert run("resnet50") == 0
    first = read_results(tmp_path)
    assert run("mlp") == 0
    results = read_results(tmp_path)
    assert list(results) == ["mlp", "resnet50"]
    assert results["resnet50"] == first["resnet50"]
    page = (tmp_path / "tune.md").read_text()
    assert page.index("requests per second, MLP") < page.index("requests per second, ResNet50")
    for name in ("tune.png", "tune-models.png"):
        assert (tmp_path / name).stat().st_size > 1000


def test_a_model_that_fails_keeps_its_results(run, tmp_path, monkeypatch, capsys):
    kept = {"trivial": make_result("trivial", settings="kept")}
    (tmp_path / "tune.json").write_text(json.dumps(kept))

    def measure_model(name, *_):
        if name == "trivial":
            raise command.TuningFailedError("tfserving tune trivial failed")
        return make_result(name)

    monkeypatch.setattr(command, "measure_model", measure_model)
    assert run("trivial", "mlp") == 1
    assert "tfserving tune trivial failed" in capsys.readouterr().err
    results = read_results(tmp_path)
    assert list(results) == ["trivial", "mlp"]
    assert results["trivial"] == kept["trivial"]


def test_writes_all_files_again_without_measuring(run, tmp_path, monkeypatch):
    assert run("mlp") == 0
    monkeypatch.delattr(command, "measure_model")
    written = (tmp_path / "tune.md").read_text()
    (tmp_path / "tune.md").unlink()
    assert run("--only-write") == 0
    assert (tmp_path / "tune.md").read_text() == written


def test_rejects_an_unknown_model(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("resnet")
    assert (
        "unknown model resnet (choose from trivial, mlp, dense, mobilenet, resnet50)"
        in capsys.readouterr().err
    )
