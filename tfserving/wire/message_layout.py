"""Cached layouts of messages that differ only in their values.

The messages of a model that is called repeatedly with one batch size are equal except for the values of the
tensors. So after one message was scanned, another of the same length is only compared with it outside the
values, in a few short comparisons, and its values are read from the same positions.
docs/decisions/0022-keep-only-measured-fast-paths.md shows what this gains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tfserving.wire.dtypes import Arrays
from tfserving.wire.model_spec import ModelSpec

# Bytes up to which copying twice is faster than ndarray.copy.
_SMALL = 4096

# Limits of the cache: layouts, and the bytes of a layout outside the values.
_MAX_LAYOUTS = 64
_MAX_LITERAL_BYTES = 4096


class TensorSpan(NamedTuple):
    """The position of a tensor's raw values in a message: from `start` to `stop`."""

    alias: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """The contents of a message except the values, and the positions of the values.

    `names` are the outputs that a request selects.
    """

    spec: ModelSpec
    names: tuple[str, ...]
    spans: tuple[TensorSpan, ...]

    def arrays(self, data: bytes, *, copy: bool) -> Arrays:
        """The tensors of a message with this layout, by name.

        With `copy` they do not share the memory of `data` (small ones are in a bytearray); without, they
        are read-only, possibly unaligned views of `data`.
        """
        arrays: Arrays = {}
        for alias, dtype, shape, start, stop in self.spans:
            if not copy:
                arrays[alias] = np.ndarray(shape, dtype, data, start)
            elif stop - start <= _SMALL:
                arrays[alias] = np.ndarray(shape, dtype, bytearray(data[start:stop]))
            else:
                arrays[alias] = np.ndarray(shape, dtype, data, start).copy()
        return arrays


class Layouts:
    """A cache of layouts by the length of the message. Threads may share it: entries are immutable."""

    def __init__(self) -> None:
        self._cached: dict[int, tuple[Layout, tuple[tuple[bytes, int], ...]]] = {}

    def find(self, data: bytes) -> Layout | None:
        """The layout of a message, if it is cached."""
        found = self._cached.get(len(data))
        if found is None:
            return None
        layout, literals = found
        for literal, position in literals:
            if not data.startswith(literal, position):
                return None
        return layout

    def add(self, data: bytes, layout: Layout) -> None:
        """Cache the layout of a message; its spans are in the order of the message."""
        literals, position = [], 0
        for span in layout.spans:
            literals.append((data[position : span.start], position))
            position = span.stop
        literals.append((data[position:], position))
        if sum(len(literal) for literal, _ in literals) <= _MAX_LITERAL_BYTES:
            if len(self._cached) >= _MAX_LAYOUTS:
                self._cached.clear()
            self._cached[len(data)] = layout, tuple(literals)
