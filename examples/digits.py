"""Handwritten digits: 1,797 scans of 8x8 pixels from scikit-learn, and a network that classifies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 7
EPOCHS = 15


@dataclass(frozen=True)
class Scans:
    """Labelled scans.

    Attributes:
        images: float32 [n, 8, 8, 1], pixels from 0 (paper) to 255 (ink).
        labels: int64 [n], 0 to 9.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_scans() -> tuple[Scans, Scans]:
    """Return the scans for training, and a held-out quarter for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # from 0..16 to the 0..255 of image files, so that the model accepts both
    images = (digits.images * (255 / 16)).astype(np.float32)[..., np.newaxis]
    labels = digits.target.astype(np.int64)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=SEED
    )
    return Scans(train_images, train_labels), Scans(test_images, test_labels)


def train(scans: Scans) -> Any:
    """Train a Keras model: image float32 [n, 8, 8, 1] -> probabilities float32 [n, 10], digit int [n]."""
    import keras

    keras.utils.set_random_seed(SEED)
    image = keras.Input((8, 8, 1), name="image")
    hidden = keras.layers.Rescaling(1 / 255)(image)
    hidden = keras.layers.Conv2D(16, 3, activation="relu", padding="same")(hidden)
    hidden = keras.layers.Conv2D(32, 3, activation="relu")(hidden)
    hidden = keras.layers.MaxPooling2D()(hidden)
    hidden = keras.layers.Dropout(0.2)(keras.layers.Flatten()(hidden))
    probabilities = keras.layers.Dense(10, activation="softmax")(hidden)

    classifier = keras.Model(image, probabilities)
    classifier.compile("adam", "sparse_categorical_crossentropy")
    classifier.fit(scans.images, scans.labels, batch_size=32, epochs=EPOCHS, verbose=0)

    # A dict gives the outputs their names in the SavedModel.
    outputs = {"probabilities": probabilities, "digit": keras.ops.argmax(probabilities, axis=-1)}
    return keras.Model(image, outputs)
