"""Large bytes objects with fewer page faults.

gRPC takes only bytes. The memory of large bytes comes from the system and returns to it with each call, and
the faults on its 4 kB pages take several times as long as copying: 13 of 15 ms for 38 MB. Two measures:

* glibc keeps freed memory once a larger block was freed (mallopt(3): M_MMAP_THRESHOLD is dynamic). So the
  first message above `MEDIUM` bytes allocates and frees one such block. Without it, a message of
  600 kB costs up to 260 faults and 0.6 ms, depending on the state of the heap.
* Above `LARGE` bytes, 2 MB pages are requested from the system, as numpy does for its arrays, between
  allocating the bytes and filling them. CPython allows that for bytes that no other code has a reference to
  (PyBytes_FromStringAndSize).

docs/decisions/0022-keep-only-measured-fast-paths.md shows what each gains.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

# glibc's initial threshold for memory taken from the system for a single block, and a size well below the
# limit of that threshold (32 MB).
MEDIUM = 2**17
LARGE = 2**24

_PAGE = 4096
_MADV_HUGEPAGE = 14


def join_buffers(parts: Sequence[Any], size: int) -> bytes:
    """`b"".join` of bytes and C-contiguous arrays with `size` bytes together."""
    if size > MEDIUM:
        _keep_freed_memory()
    allocate = find_allocator() if size > LARGE else None
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
    bytes(LARGE)  # zeros, which take no memory before they are read; freed immediately


@cache
def find_allocator() -> Callable[[int], tuple[bytes, int]] | None:
    """A function from a size to uninitialized bytes and their address; None where this is not supported."""
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
    offset = bytes.__basicsize__ - 1  # the basic size includes the NUL after the bytes

    def allocate(size: int) -> tuple[bytes, int]:
        whole = new(None, size)
        address = id(whole) + offset
        first = -(-address // _PAGE) * _PAGE
        # a failure is harmless: the pages stay small
        madvise(first, address + size - first, _MADV_HUGEPAGE)
        return whole, address

    return allocate
