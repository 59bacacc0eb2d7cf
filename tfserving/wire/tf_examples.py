"""The `Input` message of Classify, Regress and MultiInference as the input tensor of their signatures."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError
from tfserving.wire.dtypes import Array

# The alias of that tensor (tensorflow/core SignatureConstants).
INPUTS = "inputs"


def count(message: Any) -> int:
    """The number of examples in an `Input`."""
    return len(_examples(message))


def serialized(message: Any) -> Array:
    """Serialized tf.Examples, a string tensor of shape [n].

    The context is prepended to each example. Where both have a feature, the example's counts, being last.

    Raises:
        InvalidInputError: there are no examples.
    """
    examples = _examples(message)
    if not examples:
        raise InvalidInputError("Input is empty; send at least one example")
    context = b""
    if message.WhichOneof("kind") == "example_list_with_context":
        context = message.example_list_with_context.context.SerializeToString()
    array = np.empty(len(examples), object)
    array[:] = [context + example.SerializeToString() for example in examples]
    return array


def _examples(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    return getattr(message, kind).examples if kind else ()
