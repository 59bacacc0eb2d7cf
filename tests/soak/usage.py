"""What a process holds, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Resident memory in MB (10**6 bytes), threads, open files and sockets."""

    rss: float
    threads: int
    files: int

    def __str__(self) -> str:
        return f"{self.rss:.0f} MB, {self.threads} threads, {self.files} files and sockets"


def usage(pid: int) -> Usage:
    """What a process holds now."""
    folder = Path(f"/proc/{pid}")
    fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
    return Usage(
        int(fields["VmRSS"].split()[0]) * 1024 / 1e6, int(fields["Threads"]), len(os.listdir(folder / "fd"))
    )
