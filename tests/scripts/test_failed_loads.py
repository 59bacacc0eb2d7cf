"""What run_tf_serving.sh finds in a server's log about loads."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RETRIER = "2026-01-31 09:15:02.023: E tensorflow_serving/util/retrier.cc:43] "
HARNESS = "2026-01-31 09:15:02.023: I tensorflow_serving/core/loader_harness.cc:79] "


def loading(version: int, model: str = "half") -> str:
    return f"{HARNESS}Loading servable version {{name: {model} version: {version}}}\n"


def loaded(version: int, model: str = "half") -> str:
    return f"{HARNESS}Successfully loaded servable version {{name: {model} version: {version}}}\n"


def failed(version: int, error: str, model: str = "half") -> str:
    return f"{RETRIER}Loading servable: {{name: {model} version: {version}}} failed: {error}\n"


def retry(version: int, model: str = "half") -> str:
    return f"{RETRIER}Retrying of Loading servable: {{name: {model} version: {version}}} retry: 1\n"


def find_failed_load(log: str) -> str:
    script = f'ROOT="{ROOT}"; source "$ROOT/lib/server_status.sh"; find_failed_load'
    done = subprocess.run(["bash", "-c", script], input=log, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.rstrip("\n")


@pytest.mark.parametrize(
    "log",
    [
        "",
        "model version failed\n",
        loading(1),
        loading(1) + loaded(1),
        loading(2) + failed(2, "no file") + loading(1),
        loading(2) + failed(2, "no file") + loading(1) + loaded(1),
        loading(1) + failed(1, "half a copy") + retry(1) + loaded(1),
    ],
)
def test_finds_nothing_while_a_version_of_each_model_can_become_available(log: str) -> None:
    assert find_failed_load(log) == ""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (loading(2) + failed(2, "NOT_FOUND: no {x}"), "half: version 2 failed to load: NOT_FOUND: no {x}"),
        (loading(1) + failed(1, "a") + retry(1) + failed(1, "b"), "half: version 1 failed to load: a"),
        (failed(2, "a") + failed(1, "b"), "half: version 2 failed to load: a"),
        (loading(1, "other") + failed(2, "a"), "half: version 2 failed to load: a"),
        (
            failed(2, "see {name: other version: 3}"),
            "half: version 2 failed to load: see {name: other version: 3}",
        ),
    ],
)
def test_finds_the_first_failure_in_the_log_of_tensorflow_model_server(log: str, expected: str) -> None:
    assert find_failed_load(log) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["model 'half' version 1: loading from /m/half/1"], ""),
        (["model 'half' version 1: loading failed: no file"], "half: version 1 failed to load: no file"),
        (
            ["model 'half' version 1: loading failed; retry 1 of 5 in 10 s: no: file"],
            "half: version 1 failed to load: no: file",
        ),
        (["model 'half' version 2: loading failed: x", "model 'half' version 1: AVAILABLE after 0.10 s"], ""),
    ],
)
def test_reads_the_log_of_the_embedded_server(lines: list[str], expected: str) -> None:
    assert find_failed_load("".join(f"2026-01-31 09:15:02.023 ERROR {line}\n" for line in lines)) == expected
