"""The signature for encoded images."""

from __future__ import annotations

import io

import numpy as np
import pytest

from tfserving.errors import InvalidInputError
from tfserving.export import export_saved_model
from tfserving.repository.warmup_records import read_warmup
from tfserving.wire.signatures import read_saved_model

pytestmark = pytest.mark.tensorflow


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, kind)
    return file.getvalue()


def identity(shape, dtype):
    """A function whose default signature gives back the pixels that it gets."""
    import tensorflow as tf

    return tf.function(
        lambda pixels: {"pixels": tf.identity(pixels)},
        input_signature=[tf.TensorSpec(shape, dtype, name="image")],
    )


def image(height: int, width: int, channels: int) -> np.ndarray:
    values = np.arange(height * width * channels) * 255 // (height * width * channels - 1)
    return values.astype(np.uint8).reshape(height, width, channels)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int32"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_arrive_unscaled_in_the_models_dtype(models_dir, call_signature, dtype, channels):
    path = export_saved_model(
        identity([None, 5, 7, channels], dtype), "m", models_dir=models_dir, image_bytes=True
    )
    pixels = image(5, 7, channels)
    answer = call_signature(path, "image_bytes", image_bytes=[encoded(pixels, "png")] * 2)["pixels"]
    assert answer.dtype == dtype
    assert answer.shape == (2, 5, 7, channels)
    np.testing.assert_array_equal(answer[1], pixels)


def test_jpeg_gif_and_bmp_are_taken_and_resized(models_dir, call_signature):
    path = export_saved_model(
        identity([None, 5, 7, 3], "float32"), "m", models_dir=models_dir, image_bytes=True
    )
    grey = np.full((50, 20, 3), 100, np.uint8)
    files = [encoded(grey, kind) for kind in ("jpeg", "gif", "bmp", "png")]
    answer = call_signature(path, "image_bytes", image_bytes=files)["pixels"]
    assert answer.shape == (4, 5, 7, 3)
    np.testing.assert_allclose(answer, 100, atol=2)


def test_the_default_signature_stays_and_both_are_renamed(models_dir, call_signature):
    path = export_saved_model(
        identity([None, 2, 2, 1], "float32"),
        "m",
        models_dir=models_dir,
        image_bytes=True,
        input_names={"image": "scan"},
        output_names={"pixels": "seen"},
    )
    found = read_saved_model(path)
    assert {name: (list(s.inputs), list(s.outputs)) for name, s in found.items()} == {
        "image_bytes": (["image_bytes"], ["seen"]),
        "serving_default": (["scan"], ["seen"]),
    }
    pixels = image(2, 2, 1)
    same = call_signature(path, scan=pixels[None].astype(np.float32))["seen"]
    np.testing.assert_array_equal(
        call_signature(path, "image_bytes", image_bytes=[encoded(pixels, "png")])["seen"], same
    )


def test_it_is_warmed_up_with_an_image(models_dir):
    path = export_saved_model(
        identity([None, 2, 2, 3], "float32"), "m", models_dir=models_dir, image_bytes=True, warmup=1
    )
    signatures = [log.predict_log.request.model_spec.signature_name for log in read_warmup(path)]
    assert signatures == ["image_bytes", "serving_default"]


def test_samples_can_be_encoded_images(models_dir):
    samples = {"image_bytes": np.array([encoded(image(9, 9, 3), "png")], dtype=object)}
    path = export_saved_model(
        identity([None, 2, 2, 3], "float32"),
        "m",
        models_dir=models_dir,
        image_bytes=True,
        warmup_data=samples,
    )
    (log,) = read_warmup(path)
    assert log.predict_log.request.model_spec.signature_name == "image_bytes"


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ([None, 10], "float32", r"float32 \?x10\) is no image: it has to be batch x height"),
        (None, "float32", "of any rank"),
        ([None, None, None, 3], "float32", "known size"),
        ([None, 5, 7, 2], "float32", "2 channels"),
        ([None, 3, 224, 224], "float32", "channels come last"),
        ([None, 5, 7, 3], "string", "string cannot hold pixels"),
        ([None, 5, 7, 3], "int8", "int8 cannot hold pixels"),
        ([None, 5, 7, 3], "bool", "bool cannot hold pixels"),
    ],
)
def test_a_model_that_takes_no_images_is_refused(models_dir, shape, dtype, message):
    with pytest.raises(InvalidInputError, match=message):
        export_saved_model(identity(shape, dtype), "m", models_dir=models_dir, image_bytes=True)
    assert not (models_dir / "m").exists()


def test_two_inputs_are_refused(models_dir):
    import tensorflow as tf

    spec = tf.TensorSpec([None, 2, 2, 1], tf.float32)
    both = tf.function(lambda a, b: {"sum": a + b}, input_signature=[spec, spec])
    with pytest.raises(InvalidInputError, match="this one has 2: a, b"):
        export_saved_model(both, "m", models_dir=models_dir, image_bytes=True)


def test_a_second_time_is_refused(models_dir):
    path = export_saved_model(
        identity([None, 2, 2, 1], "float32"), "m", models_dir=models_dir, image_bytes=True
    )
    with pytest.raises(InvalidInputError, match="already"):
        export_saved_model(path, "m", models_dir=models_dir, image_bytes=True)
