"""The `Input` message of Classify, Regress and MultiInference as the tensor that their signatures take."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError

# The alias of that tensor (tensorflow/core SignatureConstants).
INPUTS = "inputs"


def count(message: Any) -> int:
    """How many examples an `Input` has."""
    return len(_examples(message))


def serialized(message: Any) -> np.ndarray[Any, Any]:
    """Serialized tf.Examples, a string tensor of shape [n].

    A context stands before each: where both have a feature, the last one, the example's own, counts.

    Raises:
        InvalidInputError: there is no example.
    """
    examples = _examples(message)
    if not examples:
        raise InvalidInputError("Input is empty: send at least one example")
    context = b""
    if message.WhichOneof("kind") == "example_list_with_context":
        context = message.example_list_with_context.context.SerializeToString()
    array = np.empty(len(examples), object)
    array[:] = [context + example.SerializeToString() for example in examples]
    return array


def _examples(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    return getattr(message, kind).examples if kind else ()
