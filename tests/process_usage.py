"""Memory, threads and open files of a process, from /proc; and a limit of its memory."""

from __future__ import annotations

import os
import resource
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
    fields = _read_status(pid)
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return ProcessUsage(_megabytes(fields["VmRSS"]), int(fields["Threads"]), files)


def read_peak(pid: int) -> float:
    """Return the most resident memory that a process had since its start or `reset_peak`, in MB."""
    return _megabytes(_read_status(pid)["VmHWM"])


def reset_peak(pid: int) -> None:
    """Make the current resident memory of a process its peak."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def limit_growth(pid: int, megabytes: float) -> None:
    """Let allocations of a process fail from now on that add more than so many MB to those that it has."""
    allocated = _megabytes(_read_status(pid)["VmData"])
    limit = int((allocated + megabytes) * 1e6)
    resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))


def _read_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _megabytes(field: str) -> float:
    return int(field.split()[0]) * 1024 / 1e6
