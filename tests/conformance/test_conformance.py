"""The embedded server responds like tensorflow_model_server 2.20.0: one test for each recorded case."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import compare
from tests.conformance.compare import Response
from tests.embedded import ROOT, embedded

pytestmark = [pytest.mark.conformance, pytest.mark.tensorflow]

BATCHING_PARAMETERS = Path(__file__).with_name("batching.config")

# Seconds, long enough for a busy machine.
TIMEOUT = 300.0

PLAIN = compare.load(compare.GOLDEN)
BATCHING = compare.load(compare.GOLDEN_BATCHING)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the models and their models.config."""
    directory = tmp_path_factory.mktemp("zoo")
    run_module("zoo", directory)
    return directory


@pytest.fixture(scope="session")
def plain(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Response]:
    """The embedded server's responses by the name of the case."""
    return fetch_responses(zoo, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def batching(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Response]:
    """The same with batching."""
    flags = ["--enable_batching=true", f"--batching_parameters_file={BATCHING_PARAMETERS}"]
    return fetch_responses(zoo, tmp_path_factory.mktemp("batching"), *flags)


@pytest.mark.parametrize("name", PLAIN)
def test_response_agrees_with_the_recorded_one(name: str, plain: dict[str, Response]) -> None:
    assert_agrees(PLAIN[name], plain[name])


@pytest.mark.parametrize("name", BATCHING)
def test_response_with_batching_agrees_with_the_recorded_one(
    name: str, batching: dict[str, Response]
) -> None:
    assert_agrees(BATCHING[name], batching[name])


def test_responds_to_an_empty_batch_with_batching_as_without(batching: dict[str, Response]) -> None:
    name = "grpc: predict empty batch"  # with batching, the recorded server hangs
    assert_agrees(PLAIN[name], batching[name])


def test_every_recorded_case_was_sent(plain: dict[str, Response]) -> None:
    assert plain.keys() == PLAIN.keys()


def assert_agrees(golden: Response, response: Response) -> None:
    assert compare.agree(golden, response), f"\nrecorded {golden}\ngot      {response}"


def fetch_responses(zoo: Path, directory: Path, *flags: str) -> dict[str, Response]:
    """Send all cases to a new embedded server."""
    file = directory / "responses.json"
    with embedded(
        directory / "server.log",
        f"--model_config_file={zoo / 'models.config'}",
        "--allow_version_labels_for_unavailable_models=true",
        "--grpc_max_threads=64",
        *flags,
    ) as server:
        run_module("conformance", "ask", "--grpc", server.grpc, "--rest", server.rest, "--answers", file)
    return compare.load(file)


def run_module(name: str, *arguments: object) -> None:
    """Run a module of this directory in a subprocess, since it imports TensorFlow."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.conformance.{name}", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
        check=False,
    )
    assert done.returncode == 0, f"{name} exited with code {done.returncode}\n{done.stdout}\n{done.stderr}"
