"""Distributes calls to version labels by weight: at random, or so that a key always gets the same label."""

from __future__ import annotations

import hashlib
import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

from tfserving.client.options import is_encodable, is_number
from tfserving.errors import InvalidInputError

# Bits of a key: those of a UUID. Python limits the digits of an int, by version.
_LONGEST_INT = 128


class LabelSplit:
    """The labels that the calls of one model go to, and their shares.

    A key is given to the label with the lowest -log(u) / weight, where u is a hash of model, label and key in
    (0, 1): weighted rendezvous hashing. Each label gets its share of the keys, in any order of the labels. If
    one weight changes, or if there are two labels, only as many keys move as must.

    Args:
        weights: the weight of each label, a number above 0; its share is the weight divided by their sum.
        model: the model's name. Splits of different models are independent.

    Raises:
        InvalidInputError: there are no weights, or a label, a weight or the model is not valid.
    """

    def __init__(self, weights: Mapping[str, float], model: str | None) -> None:
        if not isinstance(weights, Mapping) or not weights:
            raise InvalidInputError(
                f"split={weights!r:.60} is not valid; pass a dict from labels to weights, "
                'such as {"stable": 95, "canary": 5}'
            )
        if not isinstance(model, str) or not model:
            raise InvalidInputError(
                f"split= with model_name={model!r} is not valid: labels belong to a model; pass model_name="
            )
        for label, weight in weights.items():
            if not isinstance(label, str) or not label or not is_encodable(label):
                raise InvalidInputError(f"split: label {label!r} is not valid; pass a str")
            if not is_number(weight) or not 0 < weight < math.inf:
                raise InvalidInputError(
                    f"split: weight {weight!r} of label {label!r} is not valid; "
                    "pass a number above 0, or omit the label"
                )
        self._labels = tuple(weights)
        try:
            self._bounds = tuple(accumulate(map(float, weights.values())))
        except OverflowError:
            self._bounds = (math.inf,)
        if self._bounds[-1] == math.inf:
            raise InvalidInputError(f"split={dict(weights)!r:.60} is not valid; the weights are too large")
        self._candidates = [
            (label, math.log(weight), _hash_of(model.encode("utf-8", "surrogatepass"), label.encode()))
            for label, weight in weights.items()
        ]

    def choose(self, key: str | bytes | int | None, rng: Callable[[], float]) -> str:
        """The label for a call.

        Args:
            key: what the choice depends on; None for a random choice.
            rng: random numbers in [0, 1).

        Raises:
            InvalidInputError: the key is not valid.
        """
        if key is None:
            position = bisect_right(self._bounds, rng() * self._bounds[-1], hi=len(self._bounds) - 1)
            return self._labels[position]
        data = _bytes_of(key)

        def score(candidate: tuple[str, float, Any]) -> tuple[float, str]:
            label, log_weight, prefix = candidate
            state = prefix.copy()
            state.update(data)
            # 52 bits: u is exact, and neither 0 nor 1
            u = ((int.from_bytes(state.digest(), "big") >> 12) + 0.5) / 2**52
            return math.log(-math.log(u)) - log_weight, label

        return min(self._candidates, key=score)[0]


def _hash_of(*parts: bytes) -> Any:
    """A hash to which the key is added. The length of each part keeps different parts apart."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(len(part).to_bytes(8, "big") + part)
    return state


def _bytes_of(key: Any) -> bytes:
    """The bytes of a key; an int and its decimal digits are the same key."""
    if isinstance(key, bytes):
        return key
    if isinstance(key, str):
        return key.encode("utf-8", "surrogatepass")
    try:
        number = None if isinstance(key, bool) else operator.index(key)
    except TypeError:
        number = None
    if number is None:
        raise InvalidInputError(f"split_key={key!r:.60} is not valid; pass a str, bytes or int")
    if number.bit_length() > _LONGEST_INT:
        raise InvalidInputError(
            f"split_key is an int of {number.bit_length()} bits; pass at most {_LONGEST_INT} bits, or a str"
        )
    return str(number).encode()
