"""A signature that takes encoded images: JPEG, PNG, GIF or BMP bytes instead of arrays of pixels.

An encoded photograph is 10 to 100 times smaller, and the caller needs no imaging library.
"""

from __future__ import annotations

from typing import Any

from tfserving.errors import InvalidInputError

SIGNATURE = "image_bytes"
# TensorFlow Serving's REST API requires the suffix _bytes for names of binary values.
INPUT = "image_bytes"


def bytes_function(function: Any) -> Any:
    """A concrete function `image_bytes: string [batch]` that decodes images and calls `function` with them.

    Each image is resized to the height and width of the only input of `function` (bilinear, ignoring the
    aspect ratio), decoded with its number of channels, and cast to its dtype. **Pixels stay 0 to 255**: scale
    them in the model, for example with keras.layers.Rescaling. The EXIF orientation is ignored, and so are
    all frames of an animated GIF but the first.

    Args:
        function: a signature from `tf.saved_model.load(...).signatures`.

    Raises:
        InvalidInputError: `function` does not have exactly one input, or the input is not a batch of images:
            batch x height x width x channels of known size, 1, 3 or 4 channels, and a dtype that can
            represent 0 to 255.
    """
    import tensorflow as tf

    specs = function.structured_input_signature[1]
    if len(specs) != 1:
        raise InvalidInputError(
            f"--image-bytes needs a model with one input; this one has {len(specs)}: "
            f"{', '.join(sorted(specs))}"
        )
    ((name, spec),) = specs.items()
    height, width, channels = _image_size(
        name, None if spec.shape.rank is None else spec.shape.as_list(), spec.dtype
    )

    def decoded(encoded: Any) -> Any:
        # tf.image.resize cannot handle animations; with expand_animations=False, they are one frame.
        image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
        image.set_shape([None, None, channels])
        resized = tf.image.resize(image, [height, width], method="bilinear")
        if spec.dtype.is_integer:
            resized = tf.round(resized)
        return tf.cast(resized, spec.dtype)

    def wrapped(**encoded: Any) -> Any:
        batch = tf.map_fn(decoded, encoded[INPUT], fn_output_signature=spec.dtype)
        return function(**{name: tf.ensure_shape(batch, spec.shape)})

    return tf.function(wrapped, autograph=False).get_concrete_function(
        **{INPUT: tf.TensorSpec([None], tf.string, name=INPUT)}
    )


def _image_size(name: str, shape: list[int | None] | None, dtype: Any) -> tuple[int, int, int]:
    """Height, width and channels of an input with this shape and dtype."""
    text = "of any rank" if shape is None else "x".join("?" if size is None else str(size) for size in shape)
    what = f"--image-bytes: input {name!r} ({dtype.name} {text}) is not an image"
    if shape is None or len(shape) != 4:
        raise InvalidInputError(f"{what}; expected batch x height x width x channels")
    height, width, channels = shape[1:]
    if height is None or width is None or channels is None:
        raise InvalidInputError(
            f"{what} of known size; export the model with a fixed height, width and number of channels"
        )
    if channels not in (1, 3, 4):
        hint = " (channels come last)" if height in (1, 3, 4) else ""
        raise InvalidInputError(f"{what}: it has {channels} channels; expected 1, 3 or 4{hint}")
    if not (dtype.is_floating or dtype.is_integer) or dtype.max < 255:
        raise InvalidInputError(f"{what}: {dtype.name} cannot represent pixels of 0 to 255")
    return height, width, channels
