"""Exports the models of the benchmarks as DIR/NAME/1: python -m benchmarks.server.benchmark_models DIR"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# The input name and its shape in requests, by model.
INPUTS = {
    "trivial": ("x", (3,)),
    "mobilenet": ("image", (1, 224, 224, 3)),
    "dense": ("x", (1, 4096)),
    "slow": ("x", (1,)),
}
# The time of a request to "slow" in seconds.
SLOW_SECONDS = 1.0


def export(directory: Path) -> None:
    """Export the models.

    trivial: y = x / 2 + 2. mobilenet: MobileNetV2 with random weights. dense: x times a matrix of 64 MB; for
    one row, reading the matrix from memory takes longer than the multiplication. slow: matrix products that
    use all CPUs for about SLOW_SECONDS.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import keras
    import tensorflow as tf

    from tfserving.export import export_saved_model

    def save(name: str, function, shape: tuple[int | None, ...], variables: object = None) -> None:
        module = tf.Module()
        module.variables_ = variables
        module.function = tf.function(
            function, input_signature=[tf.TensorSpec(shape, tf.float32, name=INPUTS[name][0])]
        )
        path = str(directory / name / "1")
        tf.saved_model.save(module, path, signatures={"serving_default": module.function})

    save("trivial", lambda x: {"y": x / 2.0 + 2.0}, (None,))

    image = keras.Input((224, 224, 3), name="image")
    network = keras.applications.MobileNetV2(weights=None, input_tensor=image)
    export_saved_model(network, "mobilenet", version=1, models_dir=directory)

    matrix = tf.Variable(tf.random.normal((4096, 4096)) / 64.0)
    save("dense", lambda x: {"y": x @ matrix}, (None, 4096), matrix)

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
    save("slow", lambda x: {"y": x + 0.0 * powers(tf.constant(count))[0, 0]}, (None,), square)


if __name__ == "__main__":
    export(Path(sys.argv[1]))
