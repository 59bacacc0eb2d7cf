"""`tensorflow.Example` from dicts, for the calls that take examples instead of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfserving.errors import InvalidInputError
from tfserving.wire import messages

Features = Mapping[str, Any]


def input_of(examples: Sequence[Features], context: Features | None) -> Any:
    """A `tensorflow.serving.Input` message; `context` holds features that all examples share.

    Raises:
        InvalidInputError: examples is no sequence of dicts, or a feature's values are of no one kind.
    """
    message = messages.Input()
    listed = message.example_list if context is None else message.example_list_with_context
    listed.SetInParent()
    for features in checked(examples):
        _fill(listed.examples.add(), features)
    if context is not None:
        _fill(message.example_list_with_context.context, context)
    return message


def checked(examples: Sequence[Features]) -> Sequence[Features]:
    """The examples, if that is what they are."""
    if isinstance(examples, Mapping):
        raise InvalidInputError("examples must be a list of dicts: wrap the one example in a list")
    for position, features in enumerate(examples):
        if not isinstance(features, Mapping):
            raise InvalidInputError(
                f"example {position} must be a dict from feature names to values, not {features!r:.60}"
            )
    return examples


def values_of(name: str, value: Any) -> list[Any]:
    """A feature's values, all bytes, all int or all float.

    The kind follows from the Python type, since a signature does not tell which features its graph parses: 2
    is an int64 feature, 2.0 a float feature. An int among floats is a float.

    Raises:
        InvalidInputError: values of a type that a feature cannot hold, or strings among numbers.
    """
    values = _flat(value)
    if all(isinstance(item, (str, bytes)) for item in values):
        return [item.encode() if isinstance(item, str) else item for item in values]
    if all(isinstance(item, int) for item in values):
        if not all(-(2**63) <= item < 2**63 for item in values):
            raise InvalidInputError(f"feature {name!r}: {value!r:.60} does not fit into int64")
        return [int(item) for item in values]
    if all(isinstance(item, (int, float)) for item in values):
        return [float(item) for item in values]
    raise InvalidInputError(
        f"feature {name!r}: {value!r:.60} must be numbers, or str and bytes, and not both"
    )


def _flat(value: Any) -> list[Any]:
    if hasattr(value, "__array__"):
        return list(np.asarray(value).reshape(-1).tolist())
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return [item.item() if isinstance(item, np.generic) else item for item in value]
    return [value]


def _fill(example: Any, features: Features) -> None:
    for name, value in features.items():
        feature = example.features.feature[name]
        values = values_of(name, value)
        if not values:
            continue
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
