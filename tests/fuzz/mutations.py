"""Nearly valid bytes: valid ones with up to four changes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

# Ends of ranges, and large, negative or overlong varints.
_EDGE_CASES = [b"\0", b"\xff", b"\x80", b"\x7f", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x80" * 12]


@st.composite
def mutated(draw: st.DrawFn, valid: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """A strategy for one of the valid byte strings with up to four changes or, 1 in 20, random bytes.

    Args:
        valid: the byte strings to change.
        tokens: pieces of the language to insert.
    """
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    data = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            data = data[:start]
        elif kind == 1:
            data = data[:start] + data[end:]
        elif kind == 2:
            data = data[:end] + data[start:]
        elif kind == 3:
            data = data[:start] + draw(st.binary(min_size=1, max_size=6)) + data[end:]
        elif kind == 4:
            data = data[:start] + draw(st.sampled_from([*_EDGE_CASES, *tokens])) + data[end:]
        else:
            other = draw(st.sampled_from(valid))
            data = data[:start] + other[draw(st.integers(0, len(other))) :]
    return data


def pieces(data: bytes) -> SearchStrategy[list[bytes]]:
    """A strategy for the same bytes in up to three pieces."""

    def cut(positions: list[int]) -> list[bytes]:
        ends = [0, *sorted(positions), len(data)]
        return [data[start:end] for start, end in itertools.pairwise(ends)]

    return st.lists(st.integers(0, len(data)), max_size=2).map(cut)
