"""Memory, threads and open files of a process, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessUsage:
    """Resident memory in MB (10**6 bytes), threads, and open files and sockets."""

    resident: float
    threads: int
    files: int

    def __str__(self) -> str:
        return f"{self.resident:.0f} MB, {self.threads} threads, {self.files} files and sockets"


def read_usage(pid: int) -> ProcessUsage:
    """Read the current usage of a process."""
    directory = Path(f"/proc/{pid}")
    lines = (directory / "status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    resident = int(fields["VmRSS"].split()[0]) * 1024 / 1e6
    return ProcessUsage(resident, int(fields["Threads"]), len(os.listdir(directory / "fd")))
