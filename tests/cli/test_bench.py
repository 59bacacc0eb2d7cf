"""tfserving bench"""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.bench.test_load_results import REFUSED
from tfserving.bench import measurement
from tfserving.cli.bench import main
from tfserving.repository.warmup_records import warmup_file, write_warmup
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import encode_request

QUICK = ("--warmup", "0.1", "--duration", "0.3", "--concurrency", "1")


@pytest.fixture
def bench(run, rpc_server, monkeypatch):
    """Runs the command against the fake server; returns exit status, stdout and stderr."""
    monkeypatch.delenv("TFSERVING_ADDRESS", raising=False)
    monkeypatch.delenv("TFSERVING_TOKEN", raising=False)

    def run_bench(*argv, address=rpc_server.address):
        return run(main, "--address", address, "--model", "half", *argv)

    return run_bench


@pytest.fixture
def unlimited(monkeypatch):
    """No result is refused, however busy the machine is."""
    monkeypatch.setattr(measurement, "refusal", lambda result: "")


@pytest.mark.usefixtures("unlimited")
def test_prints_a_table_and_writes_html(bench, tmp_path):
    path = tmp_path / "o.html"
    status, out, err = bench(*QUICK, "--rate", "50,100", "--html", str(path))
    assert status == 0, err
    rows = [line.split("  ")[0] for line in out.splitlines()]
    assert rows[0].startswith("half at 127.0.0.1:")
    assert rows[4:7] == ["concurrency 1", "rate 50", "rate 100"]
    assert [line.partition(":")[0] for line in err.splitlines()] == ["concurrency 1", "rate 50", "rate 100"]
    assert path.read_text(encoding="utf-8").count("<svg") == 3


@pytest.mark.usefixtures("unlimited")
def test_prints_json_for_rest(bench, rest_server):
    status, out, err = bench("--rest", "--json", "--version", "1", *QUICK, address=rest_server.address)
    assert status == 0, err
    found = json.loads(out)
    assert (found["api"], found["model"]) == ("REST", "half version 1")
    (level,) = found["levels"]
    assert level["rate"] > 0
    assert level["errors"] == {}


@pytest.mark.usefixtures("unlimited")
def test_sends_the_rows_of_a_file(bench, tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, x=np.ones(6, np.float32))
    status, out, err = bench("--data", path, "--batch-size", "2", *QUICK)
    assert status == 0, err
    assert "3 requests of " in out
    assert "x float32 2" in out


@pytest.mark.usefixtures("unlimited")
def test_sends_warmup_records(bench, tmp_path):
    inputs = {"x": np.ones(2, np.float32)}
    write_warmup(tmp_path, [encode_request(ModelSpec("m", signature="float32"), inputs)] * 2)
    status, out, err = bench("--warmup-records", str(warmup_file(tmp_path)), *QUICK)
    assert status == 0, err
    assert "2 requests of " in out


def test_sends_the_token(bench, service, unlimited):
    assert bench("--token", "secret", *QUICK)[0] == 0
    assert {each.get("authorization") for each in service.metadata} == {"Bearer secret"}


def test_a_refused_level_is_a_failure_without_figures(bench, monkeypatch):
    monkeypatch.setattr(measurement, "measure", lambda *arguments: REFUSED)
    status, out, _ = bench("--rate", "400")
    assert status == 1
    assert "rate 400  refused" in " ".join(out.split("\n"))
    assert "rate 400: the load generator was busy" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--shape", "x=2", "--data", "a.npz"), "--shape is for generated inputs; omit it with --data"),
        (("--warmup-records", "f", "--batch-size", "2"), "--warmup-records determines the requests; omit"),
        (("--warmup-records", "f", "--signature", "s"), "--warmup-records determines the requests; omit"),
        (("--data", "a.csv"), "--data a.csv is not an .npz file; write one with numpy.savez"),
        (("--data", "none.npz"), "cannot read none.npz: No such file or directory"),
        (("--html", "/none/o.html"), "--html /none/o.html: cannot write to /none; pass another FILE"),
        (("--signature", "float32"), "input 'x' has an unknown rank; pass --shape x=SIZES"),
    ],
)
def test_rejects_invalid_arguments_before_it_sends_load(bench, service, argv, message):
    status, out, err = bench(*argv)
    assert (status, out) == (2, "")
    assert err.startswith(f"tfserving bench: error: {message}")
    assert "Predict" not in service.methods


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--concurrency", "0"), "'0' is not a whole number from 1 to 999999"),
        (("--concurrency", "1,x"), "'x' is not a whole number"),
        (("--rate", "0"), "'0' is not a list of numbers above 0, such as 100,200"),
        (("--shape", "x"), "'x' is not NAME=SIZES, such as image=1x224x224x3"),
        (("--precision", "0"), "'0' is not a percentage above 0, at most 100"),
        (("--duration", "-1"), "'-1' is not a number of seconds above 0"),
        (("--data", "a.npz", "--warmup-records", "f"), "not allowed with argument"),
    ],
)
def test_rejects_misuse(bench, argv, message):
    status, out, err = bench(*argv)
    assert (status, out) == (2, "")
    assert message in err


def test_reports_a_server_that_cannot_be_reached(bench, rpc_server):
    status, out, err = bench(address="127.0.0.1:1")
    assert (status, out) == (1, "")
    assert err == (
        "tfserving bench: error: 127.0.0.1:1: Connection refused; start a server, or pass another --address\n"
    )


def test_reports_a_model_that_is_not_served(bench, service):
    service.models = {}
    status, _, err = bench()
    assert status == 1
    assert "NOT_FOUND: Servable not found for request: half 0" in err
