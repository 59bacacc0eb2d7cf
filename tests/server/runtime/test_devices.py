"""GPUs that CUDA_VISIBLE_DEVICES names and TensorFlow does not find."""

import os
import subprocess
import sys

import pytest

from tests.embedded import ROOT
from tfserving.errors import FailedPreconditionError
from tfserving.server.runtime.devices import check_gpus, log_devices


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, []),
        (None, ["NVIDIA H200"]),
        ("", []),
        ("-1", []),
        ("none", []),
        ("NoDevFiles", []),
        ("0", ["NVIDIA H200"]),
        ("0, GPU-3a23c669", ["NVIDIA H200", "NVIDIA H200"]),
        ("0,-1,1", ["NVIDIA H200"]),
    ],
)
def test_accepts_gpus_that_were_found(visible, found):
    check_gpus(visible, found)


@pytest.mark.parametrize(
    ("visible", "found", "message"),
    [
        ("7", [], "CUDA_VISIBLE_DEVICES=7 names 1 GPU, but TensorFlow found none; set it"),
        ("0,7", ["NVIDIA H200"], "=0,7 names 2 GPUs, but TensorFlow found NVIDIA H200; set it"),
        ("GPU-3a23c669", [], "=GPU-3a23c669 names 1 GPU, but TensorFlow found none; set it"),
    ],
)
def test_rejects_a_gpu_that_was_not_found(visible, found, message):
    with pytest.raises(FailedPreconditionError) as caught:
        check_gpus(visible, found)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ([], "devices: CPU, no GPU"),
        (["NVIDIA H200", "NVIDIA L4"], "devices: GPU:0 NVIDIA H200, GPU:1 NVIDIA L4"),
    ],
)
def test_logs_the_devices(gpus, message, caplog):
    with caplog.at_level("INFO"):
        log_devices(gpus)
    assert caplog.messages == [message]


@pytest.mark.tensorflow
def test_a_server_for_a_gpu_that_does_not_exist_exits_with_255(tmp_path):
    command = [sys.executable, "-m", "tfserving.server", "--port=0", f"--model_base_path={tmp_path}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "9999"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 255
    assert "cannot start: CUDA_VISIBLE_DEVICES=9999 names 1 GPU, but TensorFlow found none" in done.stderr
