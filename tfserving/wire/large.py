"""Large bytes objects in large pages.

gRPC takes bytes and nothing else. Python has their memory from the system anew each time, in pages of 4 kB,
and the faults on these cost several times the copying: 13 of 15 ms for 38 MB. numpy asks the system for pages
of 2 MB for its large arrays; the same is done here for bytes, between allocating and filling them, which
CPython allows for bytes that nobody has seen yet (PyBytes_FromStringAndSize).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

# numpy's own limit, and a few pages
LARGE = 2**22
_PAGE = 4096
_MADV_HUGEPAGE = 14


def join(parts: Sequence[Any], size: int) -> bytes:
    """`b"".join` of bytes and C-contiguous arrays that have `size` bytes together."""
    allocate = _allocator() if size >= LARGE else None
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
