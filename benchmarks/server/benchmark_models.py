"""Exports models of the benchmarks: python -m benchmarks.server.benchmark_models DIR [MODEL ...]

Each is written to DIR/MODEL/1. Without MODEL, it exports those of the server benchmarks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

# The input name and its shape in requests, by model.
INPUTS = {
    "trivial": ("x", (3,)),
    "mobilenet": ("image", (1, 224, 224, 3)),
    "dense": ("x", (1, 4096)),
    "slow": ("x", (1,)),
    "mlp": ("features", (1, 784)),
    "resnet50": ("image", (1, 224, 224, 3)),
}
SERVER_MODELS = ("trivial", "mobilenet", "dense", "slow")
# The time of a request to "slow" in seconds.
SLOW_SECONDS = 1.0


def export(directory: Path, names: Sequence[str] = SERVER_MODELS) -> None:
    """Export the named models.

    trivial: y = x / 2 + 2. mlp: dense layers of 512, 256 and 10 for 784 features, as for MNIST. mobilenet and
    resnet50: MobileNetV2 and ResNet50. dense: x times a matrix of 64 MB; for one row, reading the matrix from
    memory takes longer than the multiplication. slow: matrix products that use all CPUs for about
    SLOW_SECONDS. All weights are random.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    exporters: dict[str, Callable[[Path], None]] = {
        "trivial": _export_trivial,
        "mobilenet": partial(_export_application, "mobilenet", "MobileNetV2"),
        "dense": _export_dense,
        "slow": _export_slow,
        "mlp": _export_mlp,
        "resnet50": partial(_export_application, "resnet50", "ResNet50"),
    }
    for name in names:
        exporters[name](directory)


def _export_trivial(directory: Path) -> None:
    _save_function(directory, "trivial", lambda x: {"y": x / 2.0 + 2.0}, (None,))


def _export_mlp(directory: Path) -> None:
    import keras

    features = keras.Input((784,), name="features")
    hidden = keras.layers.Dense(512, activation="relu")(features)
    hidden = keras.layers.Dense(256, activation="relu")(hidden)
    _save_network(
        directory, "mlp", keras.Model(features, keras.layers.Dense(10, activation="softmax")(hidden))
    )


def _export_application(name: str, application: str, directory: Path) -> None:
    import keras

    image = keras.Input((224, 224, 3), name="image")
    network = getattr(keras.applications, application)(weights=None, input_tensor=image)
    _save_network(directory, name, network)


def _export_dense(directory: Path) -> None:
    import tensorflow as tf

    matrix = tf.Variable(tf.random.normal((4096, 4096)) / 64.0)
    _save_function(directory, "dense", lambda x: {"y": x @ matrix}, (None, 4096), matrix)


def _export_slow(directory: Path) -> None:
    import tensorflow as tf

    square = tf.Variable(tf.linalg.qr(tf.random.normal((256, 256)))[0])

    @tf.function
    def powers(count: tf.Tensor) -> tf.Tensor:
        product = tf.identity(square)
        for _ in tf.range(count):
            product = tf.matmul(product, square)
        return product

    powers(tf.constant(10))
    began = time.perf_counter()
    powers(tf.constant(300))
    count = round(SLOW_SECONDS * 300 / (time.perf_counter() - began))
    _save_function(
        directory, "slow", lambda x: {"y": x + 0.0 * powers(tf.constant(count))[0, 0]}, (None,), square
    )


def _save_network(directory: Path, name: str, network: object) -> None:
    from tfserving.export import export_saved_model

    export_saved_model(network, name, version=1, models_dir=directory)


def _save_function(
    directory: Path, name: str, function: object, shape: tuple[int | None, ...], variables: object = None
) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.variables_ = variables
    module.function = tf.function(
        function, input_signature=[tf.TensorSpec(shape, tf.float32, name=INPUTS[name][0])]
    )
    path = str(directory / name / "1")
    tf.saved_model.save(module, path, signatures={"serving_default": module.function})


if __name__ == "__main__":
    export(Path(sys.argv[1]), sys.argv[2:] or SERVER_MODELS)
