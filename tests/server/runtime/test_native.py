"""Process-wide settings of TensorFlow, each in a separate process."""

import subprocess
import sys

import pytest

from tests.embedded import ROOT

pytestmark = pytest.mark.tensorflow

RUN = """
import sys
from pathlib import Path
import numpy as np
from tfserving.errors import TfServingError
from tfserving.server import flags
from tfserving.server.request_context import RequestContext
from tfserving.server.runtime.saved_model import load

path, *argv = sys.argv[1:]
options = flags.parse_flags([f"--model_base_path={path}", *argv]).runtime
servable = load("m", 1, Path(path), options=options)
for signature in servable.signatures.values():
    inputs = {"x": np.array([3.0], np.float32)}
    try:
        outputs = servable.submit(RequestContext(), signature, inputs, ("y",)).result()
        print(signature.name, outputs["y"].tolist())
    except TfServingError as error:
        print(signature.name, error.code, error)
"""


@pytest.fixture(scope="module")
def compiled_model(tmp_path_factory):
    """The directory of a version with one signature that XLA compiles, and one that it does not."""
    import tensorflow as tf

    path = tmp_path_factory.mktemp("model") / "1"
    module = tf.Module()
    spec = [tf.TensorSpec([None], name="x")]
    module.plain = tf.function(lambda x: {"y": x * 2.0}, input_signature=spec)
    module.compiled = tf.function(lambda x: {"y": x * 2.0}, input_signature=spec, jit_compile=True)
    tf.saved_model.save(module, str(path), signatures={"compiled": module.compiled, "plain": module.plain})
    return path


USE_KERAS = """
print("keras" in sys.modules)
import tensorflow as tf
print(tf.keras.layers.Dense(1)(np.ones((1, 1))).shape)
"""


def run(path, *flags, program=RUN):
    command = [sys.executable, "-c", program, path, *flags]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_compiled_signatures_fail_without_the_flag(compiled_model):
    compiled, *_, plain = run(compiled_model)
    assert compiled == "compiled INTERNAL XLA compilation disabled"
    assert plain == "plain [6.0]"


@pytest.mark.parametrize("flag", ["xla_cpu_compilation_enabled", "xla_gpu_compilation_enabled"])
def test_compiled_signatures_run_with_the_flag(compiled_model, flag):
    assert run(compiled_model, f"--{flag}") == ["compiled [6.0]", "plain [6.0]"]


def test_keras_is_imported_only_by_code_that_uses_it(compiled_model):
    assert run(compiled_model, program=RUN + USE_KERAS)[-2:] == ["False", "(1, 1)"]
