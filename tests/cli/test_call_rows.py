"""tfserving call --input: rows of a file, an output that continues after an interrupt, rows that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tests.embedded import ROOT
from tests.process_usage import read_peak, read_usage, reset_peak
from tfserving.cli import call
from tfserving.cli.partial_output import PartialOutput
from tfserving.cli.row_files import RowFile
from tfserving.client import RowResult
from tfserving.errors import (
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
)


@pytest.fixture
def run(rpc_server, capsys, tmp_path, monkeypatch):
    """`run("--input", "x.npy")` calls the fake server; returns exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run_call(*argv):
        status = call.main(argv, address=rpc_server.address, model="half", prog="prog")
        out, err = capsys.readouterr()
        return status, out, err

    return run_call


@pytest.fixture
def reject(service):
    """Makes the model fail for requests with one of these numbers."""

    def reject(error, *numbers):
        functions = service.models["half"][2].functions
        original = functions["serving_default"]

        def predict(inputs):
            if np.isin(inputs["x"], numbers).any():
                raise error
            return original(inputs)

        functions["serving_default"] = predict

        def accept():
            functions["serving_default"] = original

        return accept

    return reject


def save_numbers(count, name="x.npy"):
    np.save(name, np.arange(count, dtype=np.float32))
    return ["--input", name, "--output", "out.npz"]


def halves(count):
    return np.arange(count, dtype=np.float32) / 2 + 2


def load(name="out.npz"):
    with np.load(name) as file:
        return {key: file[key] for key in file.files}


def predict_count(service):
    return service.methods.count("Predict")


def test_writes_the_outputs_of_all_rows_in_order(run, service):
    argv = save_numbers(1000)
    assert run(*argv, "--batch-size", "64", "--concurrency", "8") == (0, "out.npz: 1000 rows\n", "")
    assert predict_count(service) == 16
    assert load().keys() == {"y"}
    assert load()["y"].dtype == np.float32
    assert (load()["y"] == halves(1000)).all()
    assert sorted(os.listdir()) == ["out.npz", "x.npy"]


def test_calls_over_rest(rest_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [*save_numbers(100), "--rest", "--batch-size", "30"]
    assert call.main(argv, rest_address=rest_server.address, model="half") == 0
    assert (load()["y"] == halves(100)).all()
    assert len([path for path, _ in rest_server.requests if path.endswith(":predict")]) == 4


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_an_array_for_each_input(run, save):
    a = np.arange(20, dtype=np.float32).reshape(10, 2)
    save("in.npz", a=np.asfortranarray(a), b=np.arange(10))
    argv = ["--input", "in.npz", "--output", "out.npz", "--signature", "pair", "--batch-size", "3"]
    assert run(*argv)[0] == 0
    assert load().keys() == {"sum", "twice"}
    assert (load()["sum"] == a.sum(1) + np.arange(10)).all()
    assert load()["twice"].tolist() == list(range(0, 20, 2))
    assert run(*argv, "--output", "twice")[0] == 0
    assert load().keys() == {"twice"}, "the file is replaced"


@pytest.mark.parametrize("shape", [(0,), (3,), (2, 3)])
def test_keeps_dtypes_and_shapes_of_rows(run, shape):
    for label in ("int8", "bool", "complex64", "float16", "uint64"):
        array = np.ones((5, *shape), label)
        np.save("x.npy", array)
        assert (
            run("--input", "x.npy", "--output", "out.npz", "--signature", label, "--batch-size", "2")[0] == 0
        )
        y = load()["y"]
        assert (y.dtype, y.shape, y.tolist()) == (array.dtype, array.shape, array.tolist())


def test_writes_strings_as_bytes_of_one_length(run):
    np.save("x.npy", np.array(["a", "bcd", "", "é"]))
    argv = ["--input", "x.npy", "--output", "out.npz", "--signature", "string", "--batch-size", "1"]
    assert run(*argv)[0] == 0
    assert load()["y"].dtype == "S3"
    assert load()["y"].tolist() == [b"a", b"bcd", b"", "é".encode()]


def test_reports_rows_that_fail_and_writes_the_others(run, reject):
    accept = reject(InvalidInputError("bad number"), 7, 70)
    status, out, err = run(*save_numbers(100))
    assert (status, out) == (1, "out.npz: 100 rows, 2 failed\n")
    assert err.startswith("prog: 2 of 100 rows failed, see out.npz.errors.jsonl; the first is row 7: ")
    assert "bad number" in err
    y = load()["y"]
    assert np.flatnonzero(np.isnan(y)).tolist() == [7, 70]
    assert np.nansum(y - halves(100)) == 0
    with open("out.npz.errors.jsonl") as file:
        failures = [json.loads(line) for line in file]
    assert [(one["row"], one["code"]) for one in failures] == [
        (7, "INVALID_ARGUMENT"),
        (70, "INVALID_ARGUMENT"),
    ]
    assert all("bad number" in one["message"] for one in failures)
    accept()
    assert run(*save_numbers(100))[0] == 0
    assert sorted(os.listdir()) == ["out.npz", "x.npy"], "no errors of another run"


def test_writes_no_file_if_all_rows_fail(run, reject):
    reject(InvalidInputError("bad number"), *range(5))
    status, out, err = run(*save_numbers(5))
    assert (status, out) == (1, "")
    assert "all 5 rows failed, out.npz was not written; row 0: " in err
    assert sorted(os.listdir()) == ["out.npz.errors.jsonl", "x.npy"]


def test_continues_after_an_error_that_is_not_one_of_single_rows(run, reject, service):
    argv = [*save_numbers(1000), "--batch-size", "10", "--concurrency", "1"]
    accept = reject(NotFoundError("the model is gone"), 500)
    status, out, err = run(*argv)
    assert (status, out) == (1, "")
    assert "the model is gone" in err
    assert "the rows so far are in out.npz.partial; repeat the command to continue" in err
    assert sorted(os.listdir()) == ["out.npz.partial", "x.npy"]
    accept()
    service.methods.clear()
    status, out, err = run(*argv)
    assert (status, out) == (0, "out.npz: 1000 rows\n")
    assert err == "prog: continues after row 500 of 1000 in out.npz.partial\n"
    assert predict_count(service) == 50
    assert (load()["y"] == halves(1000)).all()
    assert sorted(os.listdir()) == ["out.npz", "x.npy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_continues_after_a_signal(run, service, reject, number):
    reject(InvalidInputError("bad number"), 3)

    def interrupt(method):
        if predict_count(service) == 40:
            os.kill(os.getpid(), number)

    service.before = interrupt
    argv = [*save_numbers(1000), "--batch-size", "10", "--concurrency", "2"]
    status, out, err = run(*argv)
    assert (status, out) == (128 + number, "")
    assert "repeat the command to continue" in err
    service.before = lambda method: None
    service.methods.clear()
    status, out, _ = run(*argv)
    assert (status, out) == (1, "out.npz: 1000 rows, 1 failed\n"), "the failure of the first command"
    assert predict_count(service) < 100
    y = load()["y"]
    assert np.flatnonzero(np.isnan(y)).tolist() == [3]
    assert np.nansum(y - halves(1000)) == 0


def test_does_not_continue_another_job(run, reject):
    argv = [*save_numbers(100), "--concurrency", "1"]
    accept = reject(NotFoundError("gone"), 50)
    assert run(*argv)[0] == 1
    accept()
    before = sorted(os.listdir("out.npz.partial"))
    for other in (["--version", "1"], ["--label", "stable"], ["--output", "y"], ["--signature", "float32"]):
        status, _, err = run(*argv, *other)
        assert status == 2
        assert "out.npz.partial has rows of another input, model or signature" in err
    save_numbers(101)
    assert run(*argv)[0] == 2
    np.save("x.npy", np.arange(100, dtype=np.float32)[::-1])
    assert run(*argv)[0] == 2
    assert sorted(os.listdir("out.npz.partial")) == before
    save_numbers(100)
    os.rename("x.npy", "same.npy")
    assert run("--input", "same.npy", *argv[2:])[0] == 0, "a copy of the file is the same input"


def test_two_commands_do_not_write_one_output(run, tmp_path):
    argv = save_numbers(10)
    with PartialOutput(tmp_path / "out.npz", {}, 10):
        status, _, err = run(*argv)
    assert status == 2
    assert "another command writes out.npz" in err
    assert run(*argv)[0] == 0


def test_shows_progress_on_a_terminal_only(run, monkeypatch, reject):
    reject(InvalidInputError("bad number"), 0)
    assert "rows ━" not in run(*save_numbers(10))[2]
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the file for a terminal
    err = run(*save_numbers(10))[2]
    assert "rows" in err
    assert "1 failed" in err
    assert "/10" in err


def test_writes_the_response_to_one_request(run):
    assert run("[1, 2]", "--output", "out.npz", "--output", "y") == (0, "", "")
    assert load()["y"].tolist() == [2.5, 3]
    assert os.listdir() == ["out.npz"]
    assert "cannot write nowhere/out.npz: No such file" in run("[1]", "--output", "nowhere/out.npz")[2]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--input", "x.npy"], "--input needs a file for the outputs; pass --output FILE.npz"),
        (["--input", "x.npy", "--output", "y"], "pass --output FILE.npz"),
        (
            ["--input", "x.npy", "--output", "a.npz", "--output", "b.npz"],
            "the files a.npz and b.npz; give one",
        ),
        (["--input", "x.npy", "--output", "a.npz", "[1]"], "omit VALUE"),
        (["--input", "x.npy", "--output", "a.npz", "--json"], "omit VALUE, --show, --status and --json"),
        (["[1]", "--batch-size", "5"], "--batch-size and --concurrency need --input FILE"),
        (["--output", "a.npz"], "--output a.npz writes the outputs of a request; pass VALUE or --input"),
        (["[1]", "--output", "a.npz", "--json"], "omit --show, --status and --json"),
        (["--input", "nowhere.npy", "--output", "a.npz"], "cannot read nowhere.npy: No such file"),
        (["--input", "x.json", "--output", "a.npz"], "--input x.json is not an .npy or .npz file"),
        (["--input", "scalar.npy", "--output", "a.npz"], "scalar.npy has no rows"),
        (["--input", "empty.npy", "--output", "a.npz"], "empty.npy has no rows"),
        (["--input", "broken.npy", "--output", "a.npz"], "broken.npy is not a valid .npy file"),
        (["--input", "broken.npz", "--output", "a.npz"], "broken.npz is not a valid .npz file"),
        (
            ["--input", "short.npy", "--output", "a.npz"],
            "short.npy is not a valid .npy file: it ends before row",
        ),
        (["--input", "objects.npy", "--output", "a.npz"], "it has Python objects"),
        (["--input", "uneven.npz", "--output", "a.npz"], "different numbers of rows: 'a' has 2, 'b' has 3"),
        (["--input", "double.npy", "--output", "a.npz"], "expected float32 (-1), given a float64 array"),
        (["--input", "wide.npy", "--output", "a.npz"], "expected float32 (-1), given shape (2, 3)"),
        (["--input", "x.npy", "--output", "a.npz", "--signature", "pair"], "pass a dict"),
        (["--input", "x.npy", "--output", "a.npz", "--output", "z"], "no output 'z'"),
        (["--input", "x.npy", "--output", "nowhere/a.npz"], "cannot write nowhere/a.npz.partial: No such"),
    ],
)
def test_exits_with_2_on_a_mistake_and_leaves_nothing(run, argv, words):
    np.save("x.npy", np.zeros(2, np.float32))
    np.save("scalar.npy", np.float32(1))
    np.save("empty.npy", np.zeros(0, np.float32))
    np.save("double.npy", np.zeros(2))
    np.save("wide.npy", np.zeros((2, 3), np.float32))
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez("uneven.npz", a=np.zeros((2, 2), np.float32), b=np.zeros(3, np.int64))
    for name, content in (("broken.npy", b"\x93NUMPY"), ("broken.npz", b"PK\x03\x04")):
        with open(name, "wb") as file:
            file.write(content)
    with open("x.npy", "rb") as file, open("short.npy", "wb") as short:
        short.write(file.read()[:-4])
    before = sorted(os.listdir())
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert words in err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("value", ["0", "-1", "x", "1e3", "9999999", "99999999999999"])
def test_rejects_an_invalid_number(capsys, value):
    for option in ("--batch-size", "--concurrency"):
        with pytest.raises(SystemExit):
            call.main([option, value], model="half")
        assert "not a number from 1 to 1000000" in capsys.readouterr().err


def test_reads_a_file_in_blocks(tmp_path):
    path = tmp_path / "big.npz"
    np.savez_compressed(path, x=np.zeros((100_000, 250), np.float32))
    this = os.getpid()
    rows = RowFile(str(path)).read_rows(10)
    assert next(rows)["x"].shape == (250,)
    reset_peak(this)
    before = read_usage(this).resident
    assert sum(1 for _ in rows) == 99_989
    assert read_peak(this) - before < 20, "MB; the whole array has 100"


def results(*values):
    return [RowResult(0, {"y": np.asarray(value)}) for value in values]


def test_keeps_complete_files_when_the_command_is_killed(tmp_path):
    script = """
        import os, sys
        from pathlib import Path
        import numpy as np
        from tfserving.cli.partial_output import PartialOutput
        from tfserving.client import RowResult

        times = iter([0.0, 1.0, 2.0, 6.0, 6.0, 7.0])
        output = PartialOutput(Path(sys.argv[1]), {"a": 1}, 4, clock=lambda: next(times))
        for value in (1, 2, 3, 9):  # the last one is not saved
            output.add(RowResult(0, {"y": np.asarray(value)}))
        (output.directory / "chunk.tmp").write_bytes(b"PK")
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "out.npz")]
    assert subprocess.run(command, cwd=ROOT).returncode == -9
    with PartialOutput(tmp_path / "out.npz", {"a": 1}, 4) as output:
        assert output.rows == 3
        output.add(results(4)[0])
        output.finish()
    assert load(tmp_path / "out.npz")["y"].tolist() == [1, 2, 3, 4]


def test_rows_that_failed_are_zeros_or_empty_without_nan(tmp_path):
    error = InvalidInputError("bad")
    for value, dtype, expected in (
        (5, np.int32, 0),
        (True, bool, False),
        (b"ab", object, b""),
        (1j, None, None),
    ):
        with PartialOutput(tmp_path / "out.npz", {}, 3) as output:
            output.add(RowResult(0, None, error))
            output.add(RowResult(1, {"y": np.array(value, dtype)}))
            output.add(RowResult(2, None, error))
            output.finish()
        y = load(tmp_path / "out.npz")["y"].tolist()
        assert y[1] == value
        assert [y[0], y[2]] == [expected, expected] if expected is not None else np.isnan([y[0], y[2]]).all()


def test_writes_bfloat16_as_float32(tmp_path):
    import ml_dtypes

    with PartialOutput(tmp_path / "out.npz", {}, 1) as output:
        output.add(results(np.array([1.5, 2], ml_dtypes.bfloat16))[0])
        output.finish()
    assert load(tmp_path / "out.npz")["y"].dtype == np.float32
    assert load(tmp_path / "out.npz")["y"].tolist() == [[1.5, 2]]


def add_all(path, added, seconds):
    times = iter(range(0, 1000, seconds))
    with PartialOutput(path, {}, 9, clock=lambda: next(times)) as output:
        for result in added:
            output.add(result)


@pytest.mark.parametrize(
    ("added", "error", "words"),
    [
        (results([1, 2], [1]), FailedPreconditionError, "does not fit in one array"),
        (results(1, 1.5), FailedPreconditionError, "does not fit in one array"),
        ([*results(1), RowResult(0, {"z": np.zeros(())})], FailedPreconditionError, "the model has changed"),
        (results(np.array(b"a\0", object)), UnsupportedError, "ends in a NUL byte"),
    ],
)
@pytest.mark.parametrize("seconds", [1, 10])  # saved together, or each of them
def test_reports_outputs_that_do_not_fit_in_one_array(tmp_path, added, error, words, seconds):
    with pytest.raises(error, match=words):
        add_all(tmp_path / "out.npz", added, seconds)
