"""The functions of lib/common.sh that no test of a script covers."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
ROOT=$1 SCRIPT=test
source "$ROOT/lib/common.sh"
with_a_child() { sleep 600; true; }
code=0
output=$(run_with_timeout 1 "$2") || code=$?
printf '%s %s\\n' "$output" "$code"
"""


def test_a_time_limit_ends_the_children_of_a_command() -> None:
    command = ["bash", "-c", SCRIPT, "bash", str(ROOT), "with_a_child"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == (" 124\n", "")
