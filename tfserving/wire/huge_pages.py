"""Large bytes objects without a page fault for every 4 kB.

gRPC takes bytes and nothing else. The memory of large ones comes from the system and goes back to it with
each call, and the faults on its pages cost several times the copying: 13 of 15 ms for 38 MB. Two things help:

* glibc keeps freed memory once a larger block was freed (mallopt(3), M_MMAP_THRESHOLD: its limits are
  dynamic), so one is, at the first message of some size. Without it, a message of 600 kB costs from 0 to 260
  faults and 0.6 ms, as the heap happens to lie.
* Above that, numpy asks the system for pages of 2 MB for its own arrays. The same is done here for bytes,
  between allocating and filling them, which CPython allows for bytes that nobody has seen yet
  (PyBytes_FromStringAndSize).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

# Where glibc begins to take memory from the system for one block alone, and how far that can be raised with
# room to spare (its own limit is 32 MB).
SOME = 2**17
LARGE = 2**24

_PAGE = 4096
_MADV_HUGEPAGE = 14


def join(parts: Sequence[Any], size: int) -> bytes:
    """`b"".join` of bytes and C-contiguous arrays that have `size` bytes together."""
    if size > SOME:
        _keep_freed_memory()
    allocate = _allocator() if size > LARGE else None
    if allocate is None:
        return b"".join(parts)
    from ctypes import memmove

    whole, position = allocate(size)
    for part in parts:
        if isinstance(part, bytes):
            memmove(position, part, len(part))
            position += len(part)
        else:
            memmove(position, part.ctypes.data, part.nbytes)
            position += part.nbytes
    return whole


@cache
def _keep_freed_memory() -> None:
    bytes(LARGE)  # zeros, which take no memory before they are read


@cache
def _allocator() -> Callable[[int], tuple[bytes, int]] | None:
    """From a size to bytes of any content, and their address; None where this is not known to work."""
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        return None
    try:
        import ctypes

        madvise = ctypes.CDLL(None).madvise
        new = ctypes.pythonapi.PyBytes_FromStringAndSize
    except (ImportError, AttributeError, OSError):
        return None
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    new.argtypes, new.restype = (ctypes.c_void_p, ctypes.c_ssize_t), ctypes.py_object
    offset = bytes.__basicsize__ - 1  # the NUL behind the bytes is counted too

    def allocate(size: int) -> tuple[bytes, int]:
        whole = new(None, size)
        address = id(whole) + offset
        first = -(-address // _PAGE) * _PAGE
        # advice: where it is not taken, the pages are small
        madvise(first, address + size - first, _MADV_HUGEPAGE)
        return whole, address

    return allocate
