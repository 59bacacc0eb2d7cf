"""The embedded server answers what tensorflow_model_server 2.20.0 answered: a test for each recorded case."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance import compare
from tests.conformance.compare import Answer

pytestmark = [pytest.mark.conformance, pytest.mark.tensorflow]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# Seconds. Generous: what is tested is the answers, and two tests may share two cores with others.
START = 180.0
STOP = 30.0
ASK = 300.0

PLAIN = compare.load(compare.GOLDEN)
BATCHING = compare.load(compare.GOLDEN_BATCHING)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the models and their models.config."""
    directory = tmp_path_factory.mktemp("zoo")
    script([HERE / "zoo.py", directory], ASK)
    return directory


@pytest.fixture(scope="session")
def plain(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The embedded server's answers."""
    return answers(zoo, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def batching(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The embedded server's answers with batching on."""
    flags = ["--enable_batching=true", f"--batching_parameters_file={HERE / 'batching.config'}"]
    return answers(zoo, tmp_path_factory.mktemp("batching"), *flags)


@pytest.mark.parametrize("name", PLAIN)
def test_answer(name: str, plain: dict[str, Answer]) -> None:
    assert_agrees(PLAIN[name], plain[name])


@pytest.mark.parametrize("name", BATCHING)
def test_answer_with_batching(name: str, batching: dict[str, Answer]) -> None:
    assert_agrees(BATCHING[name], batching[name])


def test_an_empty_batch_is_answered_with_batching_on_too(batching: dict[str, Answer]) -> None:
    name = "grpc: predict empty batch"  # the recorded server hangs, so this one is compared with batching off
    assert_agrees(PLAIN[name], batching[name])


def test_no_case_is_left_out(plain: dict[str, Answer]) -> None:
    assert plain.keys() == PLAIN.keys()


def assert_agrees(golden: Answer, answer: Answer) -> None:
    assert compare.agree(golden, answer), f"\nrecorded {golden}\nanswered {answer}"


def answers(zoo: Path, directory: Path, *flags: str) -> dict[str, Answer]:
    """Starts a server, asks it everything, stops it."""
    with server(zoo, directory / "server.log", *flags) as (grpc, rest):
        file = directory / "answers.json"
        ask = ["ask", "--grpc", f"127.0.0.1:{grpc}", "--rest", f"127.0.0.1:{rest}", "--answers", file]
        script([HERE / "conformance.py", *ask], ASK)
    return compare.load(file)


@contextmanager
def server(zoo: Path, log: Path, *flags: str) -> Iterator[tuple[int, int]]:
    """A server for the zoo; gives its gRPC and its REST port. It must end with code 0 when told to stop."""
    grpc, rest = free_ports()
    command = [
        sys.executable,
        "-m",
        "tfserving.server",
        "--host=127.0.0.1",
        f"--port={grpc}",
        f"--rest_api_port={rest}",
        f"--model_config_file={zoo / 'models.config'}",
        "--allow_version_labels_for_unavailable_models=true",
        "--grpc_max_threads=64",
        *flags,
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        wait_until_listening(process, (grpc, rest), log)
        yield grpc, rest
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP) == 0, f"the server ended with {process.returncode}\n{tail(log)}"
    finally:
        process.kill()
        process.wait()


def wait_until_listening(process: subprocess.Popen[bytes], ports: tuple[int, ...], log: Path) -> None:
    """The server listens when every model is available."""
    deadline = time.monotonic() + START
    for port in ports:
        while True:
            assert process.poll() is None, f"the server ended with {process.returncode}\n{tail(log)}"
            assert time.monotonic() < deadline, f"the server does not listen\n{tail(log)}"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def script(arguments: list[object], seconds: float) -> None:
    """Runs one of our scripts: they import TensorFlow, which the tests' own process shall not."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"{arguments[0]} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:])
