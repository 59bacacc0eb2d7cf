"""Generates load with h2load (Debian: nghttp2-client)."""

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
    """Requests per second, and of each request, in the order of their start, its latency and its start.

    Both are in seconds, the start since the epoch.
    """

    rate: float
    latencies: Sequence[float]
    starts: Sequence[float]


def run_for_seconds(request: Request, seconds: float, clients: int) -> Load:
    """Send requests for some seconds; each client has a connection, and one request at a time."""
    return _run(request, clients, "-D", f"{seconds * 1e3:.0f}ms", f"--warm-up-time={seconds * 200:.0f}ms")


def run_requests(request: Request, count: int) -> Load:
    """Send a number of requests, one after the other."""
    return _run(request, 1, "-n", str(count))


def _run(request: Request, clients: int, *options: str) -> Load:
    """Run h2load; raise RuntimeError if a request failed."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        command = [
            "h2load",
            *options,
            "-c",
            str(clients),
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
        raise RuntimeError(f"unexpected output of h2load: {done.stdout}{done.stderr}")
    count, succeeded, *failed = map(int, requests.groups())
    # A gRPC error is a success for HTTP, but has no message.
    if succeeded != count or any(failed) or not count or int(data[1]) < count * request.response_bytes:
        raise RuntimeError(f"requests failed: {done.stdout}")
    latencies, starts = ([int(line[column]) / 1e6 for line in lines] for column in (2, 0))
    return Load(float(finished[1]), latencies, starts)
