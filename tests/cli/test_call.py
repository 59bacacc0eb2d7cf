import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfserving import __main__ as entry
from tfserving.cli import call

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(rpc_server, capsys):
    """Runs the command against the fake server; returns status, standard output and error."""

    def run_call(*argv, address=None):
        status = call.main(list(argv), address=address or rpc_server.address, model="half", prog="ask")
        out, err = capsys.readouterr()
        return status, out, err

    return run_call


def usage_error(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        call.main(argv, model="half")
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["[1, 2]"], "y: float32 (2,)\n[2.5, 3. ]\n"),
        (["x=[1]"], "y: float32 (1,)\n[2.5]\n"),
        (["x=[1]", "--version", "1"], "y: float32 (1,)\n[1.5]\n"),
        (["[1]", "--label", "stable"], "y: float32 (1,)\n[1.5]\n"),
        (["1", "--signature", "scalar"], "y: float32 ()\n2.\n"),
        (["-1", "--signature", "scalar"], "y: float32 ()\n0.\n"),
        (['["ä", {"b64": "/w=="}]', "--signature", "string"], 'y: string (2,)\n["ä", {"b64": "/w=="}]\n'),
        (['{"x": [NaN, 1e400]}'], "y: float32 (2,)\n[nan, inf]\n"),
        (
            ["a=[[1, 2]]", "b=[3]", "--signature", "pair", "--output", "twice"],
            "twice: int64 (1,)\n[6]\n",
        ),
        (["[1]", "--json"], '{"y": [2.5]}\n'),
        (['["a=b"]', "--signature", "string", "--json"], '{"y": ["a=b"]}\n'),
        (["[1]", "--signature", "complex64", "--json"], '{"y": [[1.0, 0.0]]}\n'),
    ],
)
def test_values(run, argv, expected):
    assert run(*argv) == (0, expected, "")


def test_the_same_over_rest(rest_server, capsys):
    argv = ["--rest", "[1, 2]", "--json"]
    assert call.main(argv, rest_address=rest_server.address, model="half") == 0
    assert json.loads(capsys.readouterr().out) == {"y": [2.5, 3.0]}


def test_files(run, tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, 2]], np.float32))
    np.savez(tmp_path / "ab.npz", a=np.array([[1, 2]], np.float32), b=np.array([3]))
    (tmp_path / "ab.json").write_text('{"a": [[1, 2]], "b": [3]}')
    expected = (0, '{"sum": [6.0], "twice": [6]}\n', "")
    pair = ["--signature", "pair", "--json"]
    assert run(f"a={tmp_path}/a.npy", "b=[3]", *pair) == expected
    assert run(f"{tmp_path}/ab.npz", *pair) == expected
    assert run(f"{tmp_path}/ab.json", *pair) == expected
    odd = tmp_path / "x=1.npy"
    np.save(odd, np.array([1], np.float32))
    assert run(str(odd), "--json")[1] == '{"y": [2.5]}\n', "a file's name may hold ="


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["[1"], "neither JSON"),
        (["hello"], "text needs its own quotes"),
        (["x=hello"], "text needs its own quotes"),
        (["[1]", "[2]"], "NAME=VALUE"),
        (["[1]", "x=[2]"], "NAME=VALUE"),
        (["x=[1]", "x=[2]"], "given twice"),
        (["nowhere.npy"], "cannot read nowhere.npy: No such file"),
        (["x=nowhere.npz"], "cannot read nowhere.npz"),
        (['[{"b64": "?"}]', "--signature", "string"], "base64"),
        (["z=[1]"], "no input 'z'; it takes: 'x'"),
        (["[[1]]"], "expected float32 (-1), given shape (1, 1)"),
        (["[1]", "--output", "z"], "no output 'z'"),
        (["--show", "[1]"], "send nothing"),
        (["--status", "[1]"], "send nothing"),
        (["[1]", "--ca", "nowhere.pem"], "nowhere.pem does not exist"),
        (["[1]", "--address", "http://a"], "without a scheme"),
        (["[1]", "--token", "a\nb"], "printable"),
    ],
)
def test_misuse_is_told_and_ends_in_2(run, argv, words):
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("ask: error: ")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"{", b"\xff\xfe", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json"])
def test_broken_files(run, tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    status, out, err = run(str(path))
    assert (status, out) == (2, "")
    assert str(path) in err


def test_pickled_files_are_not_opened(run, tmp_path):
    np.save(tmp_path / "p.npy", np.array([{}], object), allow_pickle=True)
    assert run(str(tmp_path / "p.npy"))[0] == 2


def test_what_the_server_refuses_ends_in_1(run, service):
    for argv in (["[1]", "--model", "nobody"], ["[1]", "--version", "9"], ["[1]", "--signature", "nobody"]):
        status, out, err = run(*argv)
        assert (status, out) == (1, "")
        assert "nobody" in err or "9" in err
    status, _, err = run("[1]", "--timeout", "0.3", address="127.0.0.1:1")
    assert status == 1
    assert "check that the server is running" in err


def test_show_and_status(run, service):
    status, out, _ = run("--show")
    assert status == 0
    assert "signature_def['serving_default'] (tensorflow/serving/predict)" in out
    assert "inputs['x']  DT_FLOAT (-1)  x:0" in out
    assert run()[1].startswith(out)
    assert "ask NAME=JSON" in run()[1]
    one = run("--show", "--signature", "pair")[1]
    assert one.startswith("signature_def['pair']")
    assert "serving_default" not in one
    service.models["half"][2].state = 50
    assert run("--status") == (0, "VERSION  STATE      ERROR\n      2  END\n      1  AVAILABLE\n", "")
    assert json.loads(run("--status", "--json")[1])[1]["state"] == "AVAILABLE"


def test_a_token_is_sent(run, service):
    run("--status", "--token", "abc")
    assert service.metadata[-1]["authorization"] == "Bearer abc"


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_that_is_none(capsys, value):
    assert "no number of seconds above 0" in usage_error(["--timeout", value], capsys)


def test_version_and_label_exclude_each_other(capsys):
    assert "not allowed with" in usage_error(["--version", "1", "--label", "x"], capsys)


def test_the_door_and_the_subcommand_are_one_parser(rpc_server):
    def ask(*command):
        argv = [sys.executable, *command, "--address", rpc_server.address, "--model", "half", "[1]", "--json"]
        return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)

    door = ask("tf_rpc_client.py")
    subcommand = ask("-m", "tfserving", "call")
    assert (
        (door.returncode, door.stdout) == (subcommand.returncode, subcommand.stdout) == (0, '{"y": [2.5]}\n')
    )


def test_the_door_works_from_elsewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tf_rpc_client.py"), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert "tf_rpc_client.py [-h]" in done.stdout
    assert "model (digits)" in done.stdout


def test_the_entry_point(capsys):
    assert entry.main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(name in usage for name in ("call", "export", "serve", "repository"))
    assert entry.main(["--version"]) == 0
    assert entry.main([]) == 2
    assert entry.main(["cal"]) == 2
    assert "there is no command 'cal'; choose: call" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "call",
        "repository",
        pytest.param("export", marks=pytest.mark.tensorflow),
        pytest.param("serve", marks=pytest.mark.tensorflow),
    ],
)
def test_each_subcommand_answers_to_help(name):
    argv = [sys.executable, "-m", "tfserving", name, "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "usage" in done.stdout.lower()


def test_a_subcommand_whose_extra_is_not_installed_says_so(capsys, monkeypatch):
    monkeypatch.setitem(entry._COMMANDS, "serve", ("no_such_module", "", "server"))
    assert entry.main(["serve"]) == 1
    assert capsys.readouterr().err == (
        "tfserving: error: No module named 'no_such_module': pip install 'tfserving-toolkit[server]'\n"
    )
