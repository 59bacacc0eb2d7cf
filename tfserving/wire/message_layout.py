"""Messages that are alike but for their values.

The replies of a model that is called again and again with one batch size have the same bytes everywhere
except where the tensors' values stand. So where a message was walked through once, another of its length is
checked by comparing the rest, which is a few short comparisons, and its values are taken from the known
places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tfserving.wire.model_spec import ModelSpec

Arrays = dict[str, np.ndarray[Any, Any]]

# Bytes up to which a second copy takes less time than what ndarray.copy does beside copying.
_SMALL = 4096

# Layouts that are kept, and the bytes that one may have beside the values.
_KEPT = 64
_MOST_BYTES = 4096


class Place(NamedTuple):
    """Where the raw values of a tensor stand: from `start` to `stop`."""

    alias: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """What a message says beside its values, and where these stand."""

    spec: ModelSpec
    names: tuple[str, ...]
    places: tuple[Place, ...]

    def arrays(self, data: bytes, *, copy: bool) -> Arrays:
        """The tensors of a message of this layout, by name.

        With `copy` they are in memory of their own, which for small ones a bytearray holds (`owndata` is
        False); else they are read-only, perhaps unaligned views of `data`.
        """
        arrays: Arrays = {}
        for alias, dtype, shape, start, stop in self.places:
            if not copy:
                arrays[alias] = np.ndarray(shape, dtype, data, start)
            elif stop - start <= _SMALL:
                arrays[alias] = np.ndarray(shape, dtype, bytearray(data[start:stop]))
            else:
                arrays[alias] = np.ndarray(shape, dtype, data, start).copy()
        return arrays


class Layouts:
    """The layouts of messages seen, by the messages' lengths. Threads may share it: entries are immutable."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Layout, tuple[tuple[bytes, int], ...]]] = {}

    def find(self, data: bytes) -> Layout | None:
        """The layout that a message has, if it is known."""
        found = self._known.get(len(data))
        if found is None:
            return None
        layout, literals = found
        for literal, position in literals:
            if not data.startswith(literal, position):
                return None
        return layout

    def learn(self, data: bytes, layout: Layout) -> None:
        """This message has that layout; its places stand in the order of the message."""
        literals, position = [], 0
        for place in layout.places:
            literals.append((data[position : place.start], position))
            position = place.stop
        literals.append((data[position:], position))
        if sum(len(literal) for literal, _ in literals) <= _MOST_BYTES:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[len(data)] = layout, tuple(literals)
