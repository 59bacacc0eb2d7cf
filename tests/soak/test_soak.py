"""One minute of the soak; set TFSERVING_SOAK_SECONDS and TFSERVING_SOAK_SEED for another length and seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.embedded import ROOT

SECONDS = os.environ.get("TFSERVING_SOAK_SECONDS") or "60"
SEED = os.environ.get("TFSERVING_SOAK_SEED")


@pytest.mark.soak
@pytest.mark.tensorflow
def test_responses_and_memory_stay_correct_under_load_changes_and_malformed_clients():
    command = [sys.executable, "-m", "tests.soak", f"--seconds={SECONDS}"]
    if SEED:
        command.append(f"--seed={SEED}")
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=float(SECONDS) + 600
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
