"""Process-wide settings of TensorFlow, each in a separate process."""

import os
import subprocess
import sys

import pytest

from tests.embedded import ROOT
from tfserving.server.runtime.tensorflow_process import auto_jit_flags
from tfserving.server.server_options import RuntimeOptions

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
    """The directory of a version with a signature that XLA must compile, and one that it can compile."""
    import tensorflow as tf

    path = tmp_path_factory.mktemp("model") / "1"
    module = tf.Module()
    spec = [tf.TensorSpec([None], name="x")]
    # Fewer than four operations are no cluster.
    module.plain = tf.function(lambda x: {"y": x * 5.0 - x * 2.0 - x}, input_signature=spec)
    module.compiled = tf.function(lambda x: {"y": x * 2.0}, input_signature=spec, jit_compile=True)
    tf.saved_model.save(module, str(path), signatures={"compiled": module.compiled, "plain": module.plain})
    return path


USE_KERAS = """
print("keras" in sys.modules)
import tensorflow as tf
print(tf.keras.layers.Dense(1)(np.ones((1, 1))).shape)
"""


def run(path, *flags, program=RUN, dumps=None):
    """The lines that the program prints; XLA dumps what it compiles to the directory."""
    environment = os.environ | ({"XLA_FLAGS": f"--xla_dump_to={dumps}"} if dumps else {})
    command = [sys.executable, "-c", program, path, *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_compiled_signatures_fail_without_the_flag(compiled_model):
    compiled, *_, plain = run(compiled_model)
    assert compiled == "compiled INTERNAL XLA compilation disabled"
    assert plain == "plain [6.0]"


@pytest.mark.parametrize(
    ("flags", "modules"),
    [
        (["--xla_cpu_compilation_enabled"], 1),
        (["--xla_gpu_compilation_enabled"], 1),
        (["--xla_cpu_compilation_enabled", "--xla_auto_jit"], 2),
    ],
)
def test_flags_determine_what_xla_compiles(compiled_model, flags, modules, tmp_path):
    assert run(compiled_model, *flags, dumps=tmp_path) == ["compiled [6.0]", "plain [6.0]"]
    assert len(list(tmp_path.glob("module_*.before_optimizations.txt"))) == modules


@pytest.mark.parametrize(
    ("options", "given", "value"),
    [
        (RuntimeOptions(xla_gpu=True, xla_auto_jit=True), "", "--tf_xla_auto_jit=2"),
        (
            RuntimeOptions(xla_cpu=True, xla_auto_jit=True),
            "--tf_xla_min_cluster_size=2",
            "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit --tf_xla_min_cluster_size=2",
        ),
    ],
)
def test_auto_clustering_includes_the_cpu_only_with_its_flag(options, given, value):
    assert auto_jit_flags(options, given) == value


def test_keras_is_imported_only_by_code_that_uses_it(compiled_model):
    assert run(compiled_model, program=RUN + USE_KERAS)[-2:] == ["False", "(1, 1)"]
