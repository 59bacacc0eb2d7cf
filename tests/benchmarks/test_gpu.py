"""The GPU benchmark without a GPU."""

import json
import os
import subprocess
import sys

import pytest

from tests.embedded import ROOT


def run(*arguments, path=""):
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    environment = os.environ | {"PATH": f"{path}:{os.environ['PATH']}"} if path else None
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


def test_fails_without_a_gpu(tmp_path):
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    command.chmod(0o755)
    done = run(path=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "benchmarks.gpu needs an NVIDIA GPU: nvidia-smi -L reports: No devices were found" in done.stderr


def test_rejects_an_unknown_configuration():
    done = run("--cpu", "batch")
    assert done.returncode == 2
    assert "'batch' is not a configuration (plain, batching, xla, batching+xla, cpu)" in done.stderr


@pytest.mark.tensorflow
def test_measures_small_models_without_a_gpu(tmp_path):
    done = run("--cpu", "--json", str(tmp_path / "figures"), "batching+xla")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "figures").read_text())
    loads = [(row["configuration"], row["model"], row["is_jpeg"], row["errors"]) for row in rows]
    assert loads == [
        ("batching+xla", "resnet50", False, {}),
        ("batching+xla", "resnet50", True, {}),
        ("batching+xla", "mobilenet", False, {}),
    ]
    table = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert table == ["configuration", *["batching+xla"] * 3]
