"""The embedded server answers what tensorflow_model_server 2.20.0 answered: a test for each recorded case."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import compare
from tests.conformance.compare import Answer
from tests.embedded import embedded

pytestmark = [pytest.mark.conformance, pytest.mark.tensorflow]

HERE = Path(__file__).parent

# Seconds. Generous: what is tested is the answers, and two tests may share two cores with others.
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
    file = directory / "answers.json"
    with embedded(
        directory / "server.log",
        f"--model_config_file={zoo / 'models.config'}",
        "--allow_version_labels_for_unavailable_models=true",
        "--grpc_max_threads=64",
        *flags,
    ) as server:
        ask = ["ask", "--grpc", server.grpc, "--rest", server.rest, "--answers", file]
        script([HERE / "conformance.py", *ask], ASK)
    return compare.load(file)


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
