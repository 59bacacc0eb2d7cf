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

    def array(self, data: bytes, *, copy: bool) -> np.ndarray[Any, Any]:
        """The tensor, in memory of its own or as a read-only, perhaps unaligned view."""
        view: np.ndarray[Any, Any] = np.ndarray(self.shape, self.dtype, data, self.start)
        return view.copy() if copy else view


@dataclass(frozen=True)
class Layout:
    """What a message says beside its values, and where these stand."""

    spec: ModelSpec
    names: tuple[str, ...]
    places: tuple[Place, ...]

    def arrays(self, data: bytes, *, copy: bool) -> Arrays:
        """The values of a message of this layout."""
        return {place[0]: place.array(data, copy=copy) for place in self.places}


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
