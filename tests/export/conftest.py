"""Small models of each kind that can be exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import PREDICT_METHOD, Signature, TensorInfo


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


def signature(
    name: str, inputs: Mapping[str, tuple[DType, tuple[int | None, ...] | None]], method: str = PREDICT_METHOD
) -> Signature:
    infos = {alias: TensorInfo(alias, dtype, shape, f"{alias}:0") for alias, (dtype, shape) in inputs.items()}
    return Signature(name, method, infos, {})


@pytest.fixture(scope="session")
def keras_model() -> Any:
    """pixels [4, 6, 1] -> output_0 [3] and output_1 [2], names that Keras gives."""
    import keras

    keras.utils.set_random_seed(1)
    image = keras.Input((4, 6, 1), name="pixels")
    flat = keras.layers.Flatten()(image)
    return keras.Model(
        image, [keras.layers.Dense(3, name="wide")(flat), keras.layers.Dense(2, name="slim")(flat)]
    )


@pytest.fixture(scope="session")
def call_signature() -> Callable[..., dict[str, np.ndarray[Any, Any]]]:
    """`call(version, x=...)` runs a signature in a session, as tensorflow_model_server does."""
    import tensorflow as tf

    from tfserving.export.tf_logging import quiet_logs

    def call(version: Path, name: str = "serving_default", **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
        v1 = tf.compat.v1
        with quiet_logs(), v1.Session(graph=tf.Graph()) as session:
            found = v1.saved_model.loader.load(session, ["serve"], str(version)).signature_def[name]
            assert set(inputs) == set(found.inputs)
            outputs = {alias: info.name for alias, info in found.outputs.items()}
            values: dict[str, np.ndarray[Any, Any]] = session.run(
                outputs, {found.inputs[alias].name: value for alias, value in inputs.items()}
            )
            return values

    return call


@pytest.fixture(scope="session")
def words_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tf.Module with a variable, an asset and a table: words -> ids, scaled; and x -> y."""
    import tensorflow as tf

    vocabulary = tmp_path_factory.mktemp("assets") / "vocabulary.txt"
    vocabulary.write_text("apple\nbanana\ncherry\n")

    class Words(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = tf.Variable(10.0)
            self.table = tf.lookup.StaticHashTable(
                tf.lookup.TextFileInitializer(
                    str(vocabulary),
                    tf.string,
                    tf.lookup.TextFileIndex.WHOLE_LINE,
                    tf.int64,
                    tf.lookup.TextFileIndex.LINE_NUMBER,
                ),
                -1,
            )

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="words")])
        def __call__(self, words: Any) -> dict[str, Any]:
            ids = self.table.lookup(words)
            return {"ids": ids, "scaled": tf.cast(ids, tf.float32) * self.scale}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def double(self, x: Any) -> dict[str, Any]:
            return {"y": x * 2.0}

        @tf.function
        def untyped(self, x: Any) -> Any:
            return x

    return Words()


@pytest.fixture(scope="session")
def tensorflow_1_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = x / 2 + 2 saved by TensorFlow 1: predict (x -> y), and classify on tf.Example."""
    import tensorflow as tf

    from tfserving.export.tf_logging import quiet_logs

    v1 = tf.compat.v1
    path = tmp_path_factory.mktemp("tensorflow_1") / "model"
    with quiet_logs(), tf.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(x * v1.get_variable("half", initializer=0.5), 2.0, name="y")
        info = v1.saved_model.build_tensor_info
        build = v1.saved_model.signature_def_utils.build_signature_def
        signatures = {
            "serving_default": build({"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict"),
            "classify": build({"inputs": info(examples)}, {"scores": info(y)}, "tensorflow/serving/classify"),
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return path
