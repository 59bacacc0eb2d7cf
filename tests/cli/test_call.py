"""tfserving call, and tf_rpc_client.py as a script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfserving.cli import call
from tfserving.errors import InvalidInputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(rpc_server, capsys):
    """`run("[1]")` calls the fake server; returns exit status, stdout and stderr."""

    def run_call(*argv, address=None):
        status = call.main(argv, address=address or rpc_server.address, model="half", prog="prog")
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
def test_prints_the_outputs(run, argv, expected):
    assert run(*argv) == (0, expected, "")


def test_calls_over_rest(rest_server, capsys):
    argv = ["--rest", "[1, 2]", "--json"]
    assert call.main(argv, rest_address=rest_server.address, model="half") == 0
    assert json.loads(capsys.readouterr().out) == {"y": [2.5, 3.0]}


def test_reads_inputs_from_files(run, tmp_path):
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
    assert run(str(odd), "--json")[1] == '{"y": [2.5]}\n', "the name of a file can contain ="


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["[1"], "neither JSON"),
        (["hello"], "a string needs its own quotes"),
        (["x=hello"], "a string needs its own quotes"),
        (["[1]", "[2]"], "NAME=VALUE"),
        (["[1]", "x=[2]"], "NAME=VALUE"),
        (["x=[1]", "x=[2]"], "given twice"),
        (["nowhere.npy"], "cannot read nowhere.npy: No such file"),
        (["x=nowhere.npz"], "cannot read nowhere.npz"),
        (['[{"b64": "?"}]', "--signature", "string"], "base64"),
        (["z=[1]"], "no input 'z'; it takes: 'x'"),
        (["[[1]]"], "expected float32 (-1), given shape (1, 1)"),
        (["[1]", "--output", "z"], "no output 'z'"),
        (["--show", "[1]"], "do not send values; omit VALUE"),
        (["--status", "[1]"], "do not send values; omit VALUE"),
        (["[1]", "--ca", "nowhere.pem"], "cannot read nowhere.pem: No such file"),
        (["[1]", "--cert", "client.pem"], "--cert needs --key"),
        (["[1]", "--address", "http://a"], "without a scheme"),
        (["[1]", "--token", "a\nb"], "printable"),
        (["[1]", "--proxy", "socks5://a"], "socks5 proxies are not supported"),
    ],
)
def test_exits_with_2_on_invalid_arguments_and_values(run, argv, words):
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("prog: error: ")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"{", b"\xff\xfe", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json"])
def test_rejects_a_damaged_file(run, tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    status, out, err = run(str(path))
    assert (status, out) == (2, "")
    assert str(path) in err


def test_rejects_pickled_arrays(run, tmp_path):
    np.save(tmp_path / "p.npy", np.array([{}], object), allow_pickle=True)
    assert run(str(tmp_path / "p.npy"))[0] == 2


def test_exits_with_1_if_the_server_rejects_the_request_or_does_not_respond(run, service):
    for argv in (["[1]", "--model", "nobody"], ["[1]", "--version", "9"], ["[1]", "--signature", "nobody"]):
        status, out, err = run(*argv)
        assert (status, out) == (1, "")
        assert "nobody" in err or "9" in err
    status, _, err = run("[1]", "--timeout", "0.3", address="127.0.0.1:1")
    assert status == 1
    assert "check that the server is running" in err


def test_prints_signatures_and_status(run, service):
    status, out, _ = run("--show")
    assert status == 0
    assert "signature_def['serving_default'] (tensorflow/serving/predict)" in out
    assert "inputs['x']  DT_FLOAT (-1)  x:0" in out
    assert run()[1].startswith(out)
    assert "To send a request: prog NAME=JSON" in run()[1]
    one = run("--show", "--signature", "pair")[1]
    assert one.startswith("signature_def['pair']")
    assert "serving_default" not in one
    service.models["half"][2].state = 50
    assert run("--status") == (0, "VERSION  STATE      ERROR\n      2  END\n      1  AVAILABLE\n", "")
    assert json.loads(run("--status", "--json")[1])[1]["state"] == "AVAILABLE"


def test_sends_the_token(run, service):
    run("--status", "--token", "abc")
    assert service.metadata[-1]["authorization"] == "Bearer abc"


def test_sends_the_token_of_a_file_or_of_the_environment(run, service, tmp_path, monkeypatch):
    def sent(*argv):
        assert run("--status", *argv)[0] == 0
        return service.metadata[-1].get("authorization")

    path = tmp_path / "token"
    path.write_text("from-file\n")
    assert sent() is None
    assert sent("--token-file", str(path)) == "Bearer from-file"
    monkeypatch.setenv("TFSERVING_TOKEN", "from-environment")
    assert sent() == "Bearer from-environment"
    assert sent("--token-file", str(path)) == "Bearer from-file"
    assert sent("--token", "abc") == "Bearer abc"
    assert sent("--token", "") is None
    monkeypatch.setenv("TFSERVING_TOKEN", "")
    assert sent() is None


@pytest.mark.parametrize("content", [b"", b"\n", b"sec\nret", b"sec\xffret", b"sec\x1bret", b"s" * 65537])
def test_rejects_a_file_that_is_not_a_token_without_showing_it(run, tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    status, out, err = run("--status", "--token-file", str(path))
    assert (status, out) == (2, "")
    assert f"--token-file: {path} is not a token" in err
    assert "sec" not in err
    assert "sss" not in err


def test_reads_an_endless_token_file_only_in_part(run):
    assert "/dev/zero is not a token" in run("--status", "--token-file", "/dev/zero")[2]
    assert "cannot read /nowhere: No such file" in run("--status", "--token-file", "/nowhere")[2]


def test_rejects_two_tokens(capsys):
    assert "not allowed with" in usage_error(["--token", "a", "--token-file", "b"], capsys)


def test_reads_the_address_from_the_environment(rpc_server, rest_server, service, monkeypatch, capsys):
    monkeypatch.setenv("TFSERVING_ADDRESS", rpc_server.address)
    assert call.main(["--status", "--model", "half"]) == 0
    assert call.main(["--status", "--model", "half", "--address", "127.0.0.1:1", "--timeout", "0.3"]) == 1
    monkeypatch.setenv("TFSERVING_ADDRESS", f"http://user:secret@{rest_server.address}")
    assert call.main(["--status", "--model", "half", "--rest"]) == 0
    assert rest_server.headers[-1]["authorization"].startswith("Basic ")


@pytest.mark.parametrize("rest", [[], ["--rest"]])
def test_connects_through_the_proxy(run, rest_server, rpc_server, rest):
    address = rest_server.address if rest else rpc_server.address
    argv = ["--status", *rest, "--address", address, "--timeout", "0.5", "--proxy"]
    status, _, err = run(*argv, "http://user:secret@127.0.0.1:1")
    assert status == 1
    assert "through the proxy 127.0.0.1:1" in err
    assert "secret" not in err
    assert run(*argv, "none")[0] == 0


def test_escapes_control_characters_of_the_server(run, service):
    argv = ['["\\u009b2J\\u007f"]', "--signature", "string"]
    assert run(*argv)[1] == 'y: string (1,)\n["\\u009b2J\\u007f"]\n'
    assert run(*argv, "--json")[1] == '{"y": ["\\u009b2J\\u007f"]}\n'
    service.failures = [InvalidInputError("a\x1b[2J\nb")]
    assert r"a\u001b[2J\nb" in run("--status")[2]
    odd = service.models["half"][2].signatures["serving_default"]
    odd.inputs["x"].name = "x\x1b[2J:0"
    assert r"x\u001b[2J:0" in run("--show")[1]


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e300", "soon"])
def test_rejects_an_invalid_timeout(capsys, value):
    assert "not a number of seconds above 0" in usage_error(["--timeout", value], capsys)


def test_rejects_a_version_with_a_label(capsys):
    assert "not allowed with" in usage_error(["--version", "1", "--label", "x"], capsys)


def test_script_and_subcommand_print_the_same(rpc_server):
    def send(*command):
        argv = [sys.executable, *command, "--address", rpc_server.address, "--model", "half", "[1]", "--json"]
        return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)

    script = send("tf_rpc_client.py")
    subcommand = send("-m", "tfserving", "call")
    assert (
        (script.returncode, script.stdout)
        == (subcommand.returncode, subcommand.stdout)
        == (0, '{"y": [2.5]}\n')
    )


def test_script_runs_in_another_directory(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tf_rpc_client.py"), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert "tf_rpc_client.py [-h]" in done.stdout
    assert "(default: digits)" in done.stdout
