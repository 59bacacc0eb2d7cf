"""Bytes that are nearly right: what is right, with some of it changed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

# What parsers trip over: ends of ranges, long lengths, negative ones.
_ODD = [b"\0", b"\xff", b"\x80", b"\x7f", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x80" * 12]


@st.composite
def mutated(draw: st.DrawFn, right: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """One of the right ones with up to four changes, or now and then any bytes at all.

    Args:
        words: pieces of the language, to be put in anywhere.
    """
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    data = draw(st.sampled_from(right))
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
            data = data[:start] + draw(st.sampled_from([*_ODD, *words])) + data[end:]
        else:
            other = draw(st.sampled_from(right))
            data = data[:start] + other[draw(st.integers(0, len(other))) :]
    return data


def pieces(data: bytes) -> SearchStrategy[list[bytes]]:
    """The same bytes cut in up to three."""

    def cut(places: list[int]) -> list[bytes]:
        ends = [0, *sorted(places), len(data)]
        return [data[start:end] for start, end in itertools.pairwise(ends)]

    return st.lists(st.integers(0, len(data)), max_size=2).map(cut)
