"""A model whose predictions reveal the version that made them: version v returns y = x * v.

    python -m tests.versioned_model DIR        exports DIR/template/ and DIR/slow/1/ with TensorFlow

`VersionedModel` makes any version from DIR/template without TensorFlow: it replaces the factor in the graph.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from tfserving.repository import versions

# The factor in the exported graph. Its bytes occur there once.
_FACTOR = struct.pack("<f", 1234.5678)


class VersionedModel:
    """Publishes versions of the model: x and y are float32 of shape (n,), and y is x times the version."""

    def __init__(self, directory: Path) -> None:
        self._template = (directory / "template" / "saved_model.pb").read_bytes()
        assert self._template.count(_FACTOR) == 1, "the bytes of the factor occur more than once in the graph"

    def graph(self, version: int) -> bytes:
        """Return the content of saved_model.pb of a version."""
        return self._template.replace(_FACTOR, struct.pack("<f", version))

    def publish(self, base_path: Path, version: int) -> Path:
        """Publish a complete version with one rename."""
        with versions.stage_version(base_path) as staging:
            (staging / "saved_model.pb").write_bytes(self.graph(version))
            return versions.publish(staging, base_path, version)

    def publish_broken(self, base_path: Path, version: int) -> Path:
        """Publish a version that no server can load."""
        with versions.stage_version(base_path) as staging:
            (staging / "saved_model.pb").write_bytes(b"\xff" + self.graph(version)[::-1])
            return staging.rename(base_path / str(version))


def export(directory: Path, seconds: float = 0.05) -> None:
    """Export the template, and slow/1, which returns x after sleeping for twice `seconds`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.multiply(x, tf.constant(struct.unpack("<f", _FACTOR)[0]), name="y")
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict"
        )
        builder = v1.saved_model.Builder(str(directory / "template"))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()

    scalar = tf.TensorSpec([], tf.int64)
    add = tf.function(lambda a, b: a + b, input_signature=[scalar, scalar]).get_concrete_function()

    def slow(x):
        types = {"output_types": [tf.int64], "output_shapes": [[]]}
        sleeping = tf.raw_ops.SleepDataset(
            input_dataset=tf.raw_ops.RangeDataset(start=1, stop=2, step=1, **types),
            sleep_microseconds=int(seconds * 1e6),
            **types,
        )
        (one,) = tf.raw_ops.ReduceDataset(
            input_dataset=sleeping,
            initial_state=[tf.constant(0, tf.int64)],
            other_arguments=[],
            f=add,
            **types,
        )
        return {"y": x * tf.cast(one, tf.float32)}

    module = tf.Module()
    module.slow = tf.function(slow, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    tf.saved_model.save(module, str(directory / "slow" / "1"), signatures={"serving_default": module.slow})


if __name__ == "__main__":
    export(Path(sys.argv[1]))
