"""saved_model_cli, `tfserving call --show` and both clients agree on names and values of one model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.embedded import ROOT, Embedded, embedded
from tf_rpc_client import TfRestClient, TfRpcClient

pytestmark = pytest.mark.tensorflow

MAKE = """
import sys
import tensorflow as tf
from export_saved_model import export_saved_model

def mix(a, b):
    total = tf.reduce_sum(a, 1) + tf.cast(b, tf.float32)
    return {"total": total, "twice": b * 2, "name": tf.strings.as_string(b)}

spec = [tf.TensorSpec([None, 3], tf.float32, name="a"), tf.TensorSpec([None], tf.int32, name="b")]
export_saved_model(tf.function(mix, input_signature=spec), "mix", models_dir=sys.argv[1])
"""
A = np.array([[1, 2, 3], [4, 5, 6.5]], np.float32)
B = np.array([7, 8], np.int32)


def run(*command: str | Path) -> str:
    """Returns the output of a Python program."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def saved_model_cli(*arguments: str | Path) -> str:
    return run("-m", "tensorflow.python.tools.saved_model_cli", *arguments)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    run("-c", MAKE, str(models))
    return models / "mix" / "1"


@pytest.fixture(scope="module")
def server(version: Path) -> Iterator[Embedded]:
    log = version.parents[1] / "server.log"
    with embedded(log, "--model_name=mix", f"--model_base_path={version.parent}") as server:
        yield server


def names(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"(inputs|outputs)\['(\w+)'\]", text))


def test_saved_model_cli_show_and_both_clients_have_the_same_names(version: Path, server: Embedded) -> None:
    shown = saved_model_cli(
        "show", "--dir", version, "--tag_set", "serve", "--signature_def", "serving_default"
    )
    expected = {("inputs", "a"), ("inputs", "b"), *(("outputs", name) for name in ("total", "twice", "name"))}
    assert names(shown) == expected
    assert names(run("tf_rpc_client.py", "--address", server.grpc, "--model", "mix", "--show")) == expected
    for client in (TfRpcClient(server.grpc, "mix"), TfRestClient(server.rest, "mix")):
        with client:
            assert client.infer({"a": A, "b": B}).keys() == {"total", "twice", "name"}


def test_saved_model_cli_and_both_clients_return_the_same_values(
    version: Path, server: Embedded, tmp_path: Path
) -> None:
    np.savez(tmp_path / "inputs.npz", a=A, b=B)
    inputs = ";".join(f"{name}={tmp_path / 'inputs.npz'}[{name}]" for name in "ab")
    saved_model_cli(
        "run", "--dir", version, "--tag_set", "serve", "--signature_def", "serving_default",
        "--inputs", inputs, "--outdir", tmp_path,
    )  # fmt: skip
    for client in (TfRpcClient(server.grpc, "mix"), TfRestClient(server.rest, "mix")):
        with client:
            outputs = client.infer({"a": A, "b": B})
            for name in ("total", "twice"):
                expected = np.load(tmp_path / f"{name}.npy")
                assert outputs[name].dtype == expected.dtype
                np.testing.assert_allclose(outputs[name], expected, rtol=1e-6)
            assert outputs["name"].tolist() == [b"7", b"8"]
