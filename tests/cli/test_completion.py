"""Shell completion of the tfserving command, in bash as users have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.embedded import ROOT

pytest.importorskip("argcomplete")

# Calls the shell function of argcomplete as bash does, and prints what it offers.
SCRIPT = r"""
tfserving() { "$PYTHON" -m tfserving "$@"; }
eval "$("$PYTHON" -c 'import argcomplete; print(argcomplete.shellcode(["tfserving"]))')"
compopt() { :; }
COMP_TYPE=9 COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$' \t\n"'\''><=;|&(:'
read -ra COMP_WORDS <<<"$1"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete tfserving
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(models_dir):
    """`complete("tfserving ver")` returns the words that bash offers, in a directory with `models`."""

    def run(line: str) -> set[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", SCRIPT, "bash", line],
            cwd=models_dir.parent,
            env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return {word.strip() for word in done.stdout.splitlines()}

    return run


def test_completes_commands_and_options(complete):
    assert complete("tfserving ver") == {"verify", "versions"}
    assert complete("tfserving diff --ser") == {"--server"}
    assert complete("tfserving traffic s") == {"show", "set"}


def test_completes_names_of_models_from_the_repository(complete, make_version):
    make_version("digits", 1)
    make_version("half", 1)
    assert complete("tfserving versions di") == {"digits"}
    assert complete("tfserving versions --models-dir models ha") == {"half"}


def test_does_not_start_a_server(complete):
    assert complete("tfserving serve --po") == {""}


def test_offers_nothing_for_an_unknown_command(complete, models_dir):
    assert complete("tfserving nothing --h") == {""}
    assert not list(Path(models_dir).iterdir())
