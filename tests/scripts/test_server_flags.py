"""The flags of tensorflow_model_server as the scripts know them, and suggestions for unknown ones."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from tfserving.server.flags import FLAGS

ROOT = Path(__file__).parents[2]


def run_bash(command: str, *arguments: str) -> str:
    """The output of a bash command that uses docker/server_config.sh."""
    script = f'source "{ROOT}/docker/server_config.sh"; {command}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_lists_the_recorded_flags_by_type() -> None:
    with (ROOT / "tests" / "conformance" / "flags.tsv").open() as file:
        types = {row["flag"]: row["type"] for row in csv.DictReader(file, delimiter="\t")}
    boolean, others = (run_bash(f'echo "${name}"').split() for name in ("BOOLEAN_FLAGS", "VALUE_FLAGS"))
    assert sorted(boolean) == sorted(name for name, kind in types.items() if kind == "bool")
    assert sorted(others) == sorted(name for name, kind in types.items() if kind != "bool")


def test_lists_the_flags_of_the_embedded_server() -> None:
    own = run_bash('echo "$EMBEDDED_FLAGS"').split()
    assert sorted(own) == sorted(flag.name for flag in FLAGS if flag.own)


@pytest.mark.parametrize(
    "flag",
    ["--enable_batching", "--enable_batching=false", "--port=1", "--saved_model_tags=", "--access_log=-"],
)
def test_accepts_known_flags(flag: str) -> None:
    assert run_bash('explain_ignored_flag "$1"', flag) == ""


@pytest.mark.parametrize(
    ("flag", "similar"),
    [
        ("--enable_bathing", "enable_batching"),
        ("--enable_batchign=true", "enable_batching"),
        ("--noenable_batching", "enable_batching"),
        ("--grpc-max-threads=8", "grpc_max_threads"),
        ("-grpc_max_threads=8", "grpc_max_threads"),
        ("--Grpc_Max_Threads=8", "grpc_max_threads"),
        ("--max_num_load_retry=1", "max_num_load_retries"),
        ("--acess_log=-", "access_log"),
    ],
)
def test_suggests_a_similar_flag(flag: str, similar: str) -> None:
    text = run_bash('explain_ignored_flag "$1"', flag)
    assert text == (
        f"{flag.partition('=')[0]} is not a flag of tensorflow_model_server, which ignores it; "
        f"did you mean --{similar}?"
    )


@pytest.mark.parametrize("flag", ["--no_such", "--x=1", "--$(id)=*", "--", "-"])
def test_suggests_nothing_for_another_word(flag: str) -> None:
    assert run_bash('explain_ignored_flag "$1"', flag).endswith("which ignores it")


def test_a_flag_without_its_value_is_ignored_too() -> None:
    assert run_bash("explain_ignored_flag --port") == "--port has no value (--port=VALUE)"


@pytest.mark.parametrize(
    ("first", "second", "edits"), [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("a*", "a?", 1)]
)
def test_counts_edits(first: str, second: str, edits: int) -> None:
    assert run_bash('count_edits "$1" "$2"', first, second) == str(edits)
