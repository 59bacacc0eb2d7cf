"""How much memory the versions of a configuration need, and how much there is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfserving.errors import InvalidInputError
from tfserving.repository.selection import SelectedVersion
from tfserving.wire.graph_files import find_graph_file

# The limits of a container: control groups, version 2 and 1.
_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SIZE = re.compile(r"([0-9]+)([bkmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}


@dataclass(frozen=True)
class MemoryNeed:
    """The bytes that a server needs at least: its variables and graphs, without what a call needs.

    Attributes:
        serving: all selected versions.
        largest: the largest of them, None if none is selected.
        largest_size: its bytes; a server holds it and its successor while it replaces it.
    """

    serving: int
    largest: SelectedVersion | None
    largest_size: int

    @property
    def updating(self) -> int:
        """The bytes while the largest version is replaced by one of the same size."""
        return self.serving + self.largest_size


def estimate_need(selected: Sequence[SelectedVersion]) -> MemoryNeed:
    """The memory that a server of these versions needs."""
    sizes = [measure_version(version.path) for version in selected]
    largest = max(range(len(sizes)), key=sizes.__getitem__, default=None)
    if largest is None:
        return MemoryNeed(0, None, 0)
    return MemoryNeed(sum(sizes), selected[largest], sizes[largest])


def total_memory() -> int:
    """The bytes of memory of this machine or, if that is less, of this container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _LIMIT_FILES:
        try:
            total = min(total, int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return total


def parse_size(text: str) -> int:
    """The bytes of a size as docker takes it: `4g`, `512m`, `65536k`, or bytes.

    Raises:
        InvalidInputError: it is not a size, or 0.
    """
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _UNITS[match[2].lower()] if match else 0
    if not size:
        raise InvalidInputError(f"{text!r} is not a valid size; give bytes, or a number with k, m or g: 4g")
    return size


def format_size(size: int) -> str:
    """The bytes with a unit: `1.5 GiB`."""
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def measure_version(version_dir: Path) -> int:
    """The bytes of the graph and the variables of a version."""
    graph = find_graph_file(version_dir)
    files = [*version_dir.glob("variables/variables.data-*"), *([graph] if graph else [])]
    return sum(file.stat().st_size for file in files)
