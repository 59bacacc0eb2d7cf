"""A signature that takes images as files: JPEG, PNG, GIF or BMP bytes instead of arrays of pixels.

A photograph is a tenth to a hundredth as large encoded, and the caller needs no imaging library.
"""

from __future__ import annotations

from typing import Any

from tfserving.errors import InvalidInputError

SIGNATURE = "image_bytes"
# Ends in _bytes, as TensorFlow Serving's REST API asks of names of binary values.
INPUT = "image_bytes"


def bytes_function(function: Any) -> Any:
    """A concrete function `image_bytes: string [batch]` that decodes images and calls `function` with them.

    Each image is resized (bilinear, aspect ratio not kept) to the height and width of the only input of
    `function`, with its number of channels, and cast to its dtype. **Pixels stay 0 to 255**: scaling belongs
    into the model, for instance as a keras.layers.Rescaling. Orientation in EXIF is not applied; of an
    animated GIF the first frame is taken.

    Args:
        function: a signature, as `tf.saved_model.load(...).signatures` has them.

    Raises:
        InvalidInputError: the input of `function` is no image, see `size_of`.
    """
    import tensorflow as tf

    specs = function.structured_input_signature[1]
    name, spec = only_input(specs)
    height, width, channels = size_of(
        name, None if spec.shape.rank is None else spec.shape.as_list(), spec.dtype
    )

    def decoded(encoded: Any) -> Any:
        # Animations are unknown to resize: expand_animations=False gives their first frame.
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


def only_input(specs: Any) -> tuple[str, Any]:
    """The one input of a signature.

    Raises:
        InvalidInputError: it has none or several.
    """
    if len(specs) != 1:
        raise InvalidInputError(
            "--image-bytes needs a model with one input, "
            f"and this one has {len(specs)}: {', '.join(sorted(specs))}"
        )
    name, spec = next(iter(specs.items()))
    return name, spec


def size_of(name: str, shape: list[int | None] | None, dtype: Any) -> tuple[int, int, int]:
    """Height, width and channels of an image input of this shape and dtype.

    Raises:
        InvalidInputError: it is no batch of images: not batch x height x width x channels with known sizes,
            1, 3 or 4 channels, and a dtype that can hold a pixel.
    """
    text = "of any rank" if shape is None else "x".join("?" if size is None else str(size) for size in shape)
    what = f"--image-bytes: input {name!r} ({dtype.name} {text}) is no image"
    if shape is None or len(shape) != 4:
        raise InvalidInputError(f"{what}: it has to be batch x height x width x channels")
    height, width, channels = shape[1:]
    if height is None or width is None or channels is None:
        raise InvalidInputError(
            f"{what} of a known size: export the model with a fixed height, width and channels"
        )
    if channels not in (1, 3, 4):
        hint = " (channels come last)" if height in (1, 3, 4) else ""
        raise InvalidInputError(f"{what}: {channels} channels, where 1, 3 or 4 can be decoded{hint}")
    if not (dtype.is_floating or dtype.is_integer) or dtype.max < 255:
        raise InvalidInputError(f"{what}: {dtype.name} cannot hold pixels, which go from 0 to 255")
    return height, width, channels
