"""A minute of the soak; TFSERVING_SOAK_SECONDS says how long, TFSERVING_SOAK_SEED what exactly."""

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
def test_nothing_goes_wrong_when_everything_happens_at_once():
    command = [sys.executable, "-m", "tests.soak", f"--seconds={SECONDS}"]
    if SEED:
        command.append(f"--seed={SEED}")
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=float(SECONDS) + 600
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
