"""`tensorflow.Example` messages from dicts, for the calls that take examples instead of tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfserving.client.options import is_encodable
from tfserving.errors import InvalidInputError
from tfserving.wire import messages

Features = Mapping[str, Any]


def input_message(examples: Sequence[Features], context: Features | None) -> Any:
    """A `tensorflow.serving.Input` message; `context` holds features that all examples share.

    Raises:
        InvalidInputError: examples is not a sequence of dicts, or a feature mixes kinds of values.
    """
    message = messages.Input()
    listed = message.example_list if context is None else message.example_list_with_context
    listed.SetInParent()
    for features in check_examples(examples):
        _fill(listed.examples.add(), features)
    if context is not None:
        _fill(message.example_list_with_context.context, check_context(context))
    return message


def check_examples(examples: Iterable[Features]) -> list[Features]:
    """Return the examples as a list; raise InvalidInputError if they are not dicts."""
    if isinstance(examples, Mapping):
        raise InvalidInputError("examples is a single dict, expected a list of dicts; wrap it in a list")
    if not isinstance(examples, Iterable):
        raise InvalidInputError(f"examples={examples!r:.60} is not valid; pass a list of dicts")
    examples = list(examples)
    for position, features in enumerate(examples):
        if not isinstance(features, Mapping):
            raise InvalidInputError(
                f"example {position} is {features!r:.60}, expected a dict from feature names to values"
            )
    return examples


def check_context(context: Features) -> Features:
    """Return the context; raise InvalidInputError if it is not a dict."""
    if not isinstance(context, Mapping):
        raise InvalidInputError(
            f"context={context!r:.60} is not valid; pass a dict from feature names to values"
        )
    return context


def values_of(name: str, value: Any) -> list[Any]:
    """The values of a feature: all bytes, all int or all float.

    The kind follows from the Python type, since a signature does not describe the features that its graph
    parses: 2 is an int64 feature, 2.0 a float feature. Ints among floats become floats.

    Raises:
        InvalidInputError: a value that a feature cannot hold, or strings mixed with numbers; a name that is
            not valid.
    """
    if not isinstance(name, str) or not (name.isascii() or is_encodable(name)):
        raise InvalidInputError(f"feature {name!r} has no valid name; names are str that UTF-8 can represent")
    values = _flat(value)
    if all(isinstance(item, (str, bytes, bytearray, memoryview)) for item in values):
        try:
            return [item.encode() if isinstance(item, str) else bytes(item) for item in values]
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"feature {name!r}: {value!r:.60} has surrogates, which UTF-8 cannot represent; pass bytes"
            ) from error
    if all(isinstance(item, int) for item in values):
        if not all(-(2**63) <= item < 2**63 for item in values):
            raise InvalidInputError(f"feature {name!r}: {value!r:.60} does not fit in int64")
        return [int(item) for item in values]
    if all(isinstance(item, (int, float)) for item in values):
        try:
            struct.pack(f"<{len(values)}f", *values)
        except (OverflowError, struct.error) as error:
            raise InvalidInputError(f"feature {name!r}: {value!r:.60} does not fit in float32") from error
        return [float(item) for item in values]
    raise InvalidInputError(
        f"feature {name!r}: {value!r:.60} is not valid; pass either numbers, or str and bytes"
    )


def _flat(value: Any) -> list[Any]:
    if hasattr(value, "__array__"):
        return list(np.asarray(value).reshape(-1).tolist())
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, memoryview, Mapping)):
        return [item.item() if isinstance(item, np.generic) else item for item in value]
    return [value]


def _fill(example: Any, features: Features) -> None:
    for name, value in features.items():
        values = values_of(name, value)
        feature = example.features.feature[name]
        if not values:
            continue
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
