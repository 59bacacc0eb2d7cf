"""Exports the models of the GPU benchmark as DIR/NAME/1: python -m benchmarks.gpu.models DIR [--tiny]

Each has a signature for pixels and one for encoded images, and warmup records for all batch sizes.
DIR/image.jpg is an image for requests.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The batch sizes that the server may use; each new one costs up to a second on a GPU.
BATCH_SIZES = (1, 8, 32)


def export(directory: Path, *, is_tiny: bool) -> None:
    """Export resnet50 and mobilenet with random weights; with `is_tiny`, both are small networks."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras
    import tensorflow as tf

    from tfserving.export import export_saved_model
    from tfserving.export.warmup_requests import generate_requests
    from tfserving.repository.warmup_records import write_warmup
    from tfserving.wire.signatures import read_saved_model

    size = 32 if is_tiny else 224
    for name, build in (
        ("resnet50", keras.applications.ResNet50),
        ("mobilenet", keras.applications.MobileNetV2),
    ):
        image = keras.Input((size, size, 3), name="image")
        if is_tiny:
            features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(image))
            network = keras.Model(image, keras.layers.Dense(10)(features))
        else:
            network = build(weights=None, input_tensor=image)
        path = export_saved_model(network, name, version=1, models_dir=directory, image_bytes=True)
        found = read_saved_model(path)
        signatures = {signature: found[signature] for signature in ("serving_default", "image_bytes")}
        write_warmup(path, generate_requests(name, signatures, len(BATCH_SIZES), batch_sizes=BATCH_SIZES))
    # A photo compresses better than noise, and worse than a plain area.
    coarse = tf.random.uniform((size // 4, size // 4, 3), maxval=256)
    photo = tf.image.resize(coarse, (size, size)) + tf.random.normal((size, size, 3), stddev=12.0)
    encoded = tf.io.encode_jpeg(tf.saturate_cast(photo, tf.uint8), quality=95)
    (directory / "image.jpg").write_bytes(encoded.numpy())


if __name__ == "__main__":
    export(Path(sys.argv[1]), is_tiny="--tiny" in sys.argv[2:])
