"""Load by h2load, a tool that is not ours (Debian's package nghttp2-client)."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.server.servers import Request

_FINISHED = re.compile(r"finished in \S+, ([\d.]+) req/s")
_REQUESTS = re.compile(r"requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored")
_DATA = re.compile(r"\((\d+)\) data")


@dataclass(frozen=True)
class Load:
    """Calls per second, and the seconds that each call took, in the order of their ends."""

    rate: float
    seconds: Sequence[float]


def for_seconds(request: Request, seconds: float, callers: int) -> Load:
    """What so many callers get done, each with one call at a time on a connection of its own."""
    return _run(request, callers, "-D", f"{seconds * 1e3:.0f}ms", f"--warm-up-time={seconds * 200:.0f}ms")


def for_calls(request: Request, calls: int, callers: int = 1) -> Load:
    """So many calls."""
    return _run(request, callers, "-n", str(calls))


def _run(request: Request, callers: int, *how: str) -> Load:
    """Raises RuntimeError when calls failed."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        command = [
            "h2load",
            *how,
            "-c",
            str(callers),
            "-m",
            "1",
            "-d",
            str(request.body),
            f"--log-file={log}",
        ]
        command += ["--h1"] if request.http1 else []
        for header in request.headers:
            command += ["-H", header]
        done = subprocess.run([*command, request.url], capture_output=True, text=True, check=True)
        lines = sorted(line.split() for line in log.read_text().splitlines())
    finished, requests, data = (pattern.search(done.stdout) for pattern in (_FINISHED, _REQUESTS, _DATA))
    if not finished or not requests or not data:
        raise RuntimeError(f"h2load said: {done.stdout}{done.stderr}")
    count, succeeded, *failed = map(int, requests.groups())
    # a call that gRPC refuses succeeds in HTTP, but has no message
    if succeeded != count or any(failed) or not count or int(data[1]) < count * request.answer:
        raise RuntimeError(f"calls failed: {done.stdout}")
    return Load(float(finished[1]), [int(line[2]) / 1e6 for line in lines])
