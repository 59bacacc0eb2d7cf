"""The engines, with programs in place of the servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from tests.tune.fake_runs import batching
from tfserving.errors import FailedPreconditionError
from tfserving.tune import engines
from tfserving.tune.engines import DockerEngine, EmbeddedEngine, wait_for
from tfserving.tune.server_settings import ServerSettings

TUNED = ServerSettings(batching(), intra_op_threads=1)

FAKE_DOCKER = """#!{python} -SE
import json, os, sys
words = sys.argv[1:]
with open(os.environ["FAKE_CALLS"], "a") as file:
    file.write(json.dumps(words) + "\\n")
if words[0] == "run":
    for word in words:
        if word.startswith("type=bind,") and "batching" in word:
            source = word.split("source=")[1].split(",")[0]
            assert os.stat(source).st_mode & 0o777 == 0o644
elif words[0] == "inspect":
    print(os.environ["FAKE_STATE"] if "Running" in words[2] else 32768 + int("8501" in words[2]))
elif words[0] == "logs":
    print("loading\\n\\nout of memory")
elif words[:2] == ["image", "inspect"] and "missing" in words:
    sys.exit("Error: No such image: missing")
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Makes a docker engine with a docker command that records its calls; returns them too."""
    command = tmp_path / "bin" / "docker"
    command.parent.mkdir()
    command.write_text(FAKE_DOCKER.replace("{python} -SE", sys.executable))
    command.chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_CALLS", str(calls))
    monkeypatch.setenv("FAKE_STATE", "true 0")

    def make(image="tfserving-iris", **options):
        engine = DockerEngine("iris", tmp_path / "models" / "iris", image, "tfserving-tune-1", **options)
        return engine, lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    return make


def test_docker_serves_the_model_on_loopback_and_removes_the_container(docker, tmp_path):
    engine, calls = docker(gpu="0,1")
    with engine.start(replace(TUNED, auto_jit=True)) as server:
        assert (server.grpc, server.rest) == ("127.0.0.1:32768", "127.0.0.1:32769")
        assert server.exit_reason() == ""
        run = next(call for call in calls() if call[0] == "run")
    assert "TF_XLA_FLAGS=--tf_xla_auto_jit=2" in run
    assert run[-5:] == [
        "tfserving-iris",
        "--tensorflow_intra_op_parallelism=1",
        "--xla_gpu_compilation_enabled=true",
        "--enable_batching=true",
        "--batching_parameters_file=/etc/tfserving/batching_parameters_file",
    ]
    assert f"type=bind,source={tmp_path}/models/iris,target=/models/iris,readonly" in run
    assert {"--read-only", "127.0.0.1::8500", "127.0.0.1::8501", "MODEL_NAME=iris", '"device=0,1"'} <= set(
        run
    )
    # before, for one that a killed process left, and after
    assert [call for call in calls() if call[0] == "rm"] == [["rm", "--force", "tfserving-tune-1"]] * 2


def test_docker_removes_the_container_after_an_error(docker):
    engine, calls = docker()
    with pytest.raises(KeyboardInterrupt), engine.start(ServerSettings()):
        raise KeyboardInterrupt
    assert calls()[-1] == ["rm", "--force", "tfserving-tune-1"]


def test_docker_reports_why_a_container_exited(docker, monkeypatch):
    engine, _ = docker()
    monkeypatch.setenv("FAKE_STATE", "false 255")
    with engine.start(ServerSettings()) as server:
        assert server.exit_reason() == "the container exited with code 255: loading | out of memory"


def test_docker_needs_the_image(docker):
    with pytest.raises(
        FailedPreconditionError, match=r"No such image: missing; build it: MODEL_NAME=iris bash"
    ):
        docker("missing")


def test_docker_needs_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedPreconditionError, match="docker is not installed"):
        DockerEngine("iris", tmp_path, "image", "name")


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """Makes an embedded engine with a program in place of Python."""

    def make(program):
        path = tmp_path / "python"
        path.write_text(program)
        path.chmod(0o755)
        monkeypatch.setattr(engines.sys, "executable", str(path))
        return EmbeddedEngine("iris", tmp_path / "models" / "iris")

    return make


def test_embedded_passes_the_settings_to_the_server(embedded, tmp_path):
    words = tmp_path / "words"
    engine = embedded(f'#!/bin/sh\nprintf "%s\\n" "$@" >{words}\nexec sleep 60\n')
    with engine.start(TUNED) as server:
        while not (words.exists() and "batching" in words.read_text()):
            time.sleep(0.01)
        given = words.read_text().splitlines()
        port = server.grpc.rpartition(":")[2]
    expected = ["-m", "tfserving.server", "--host=127.0.0.1", f"--port={port}", "--model_name=iris"]
    expected += [f"--model_base_path={tmp_path}/models/iris", *TUNED.flags, "--enable_batching=true"]
    assert set(expected) <= set(given)


def test_embedded_stops_the_server_after_an_error(embedded, tmp_path):
    engine = embedded(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nexec sleep 60\n")

    def interrupt():
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n")):
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), engine.start(ServerSettings()):
        interrupt()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_embedded_stops_the_server_after_an_interrupt_during_its_start(embedded, monkeypatch):
    processes = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            processes.append(self)
            with blocked_here(signal.SIGINT):  # another thread receives it
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)

    threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
    monkeypatch.setattr(engines.subprocess, "Popen", Interrupted)
    engine = embedded("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(KeyboardInterrupt), engine.start(ServerSettings()):
        pytest.fail("not interrupted")
    assert processes[0].returncode == -signal.SIGTERM


@contextlib.contextmanager
def blocked_here(number):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (number,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_embedded_reports_why_a_server_exited(embedded):
    engine = embedded("#!/bin/sh\necho cannot load the model\nexit 255\n")
    with engine.start(ServerSettings()) as server:
        with pytest.raises(FailedPreconditionError, match="exited with code 255: cannot load the model"):
            list(wait_for(server, 10))
