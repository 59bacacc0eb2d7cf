"""Callers of a model server inside a container network; tests read what they report.

python -m tests.integration.callers ADDRESS MODEL [CA TOKEN_FILE]

Eight threads share a `TfRpcClient` with its defaults, and eight tasks an `AsyncTfRpcClient`. The model
computes y = x / 2 + version. Twice a second, they print a line of JSON: the calls by version, the slowest
call, the failures and wrong results, and the servers to which there are connections.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfserving.client import AsyncTfRpcClient, TfRpcClient, Tls
from tfserving.wire.dtypes import Array, Arrays

CALLERS = 8
VERSIONS = (1, 2)
PAUSE = 0.1  # seconds between two calls of a caller, so that starting servers get time as well
ESTABLISHED = "01"  # in /proc/net/tcp


class Calls:
    """What the callers of one client have seen."""

    def __init__(self) -> None:
        self.versions: collections.Counter[int] = collections.Counter()
        self.slowest = 0.0
        self.failures: list[str] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def next_input(self) -> Array:
        return np.array([next(self._numbers) % 1000], np.float32)

    def add(self, x: Array, outputs: Arrays, seconds: float) -> None:
        version = float((outputs["y"] - x / 2).item())
        with self._lock:
            self.slowest = max(self.slowest, seconds)
            if version in VERSIONS:
                self.versions[int(version)] += 1
            else:
                self.failures.append(f"wrong result for {x}: {outputs}")

    def add_failure(self, error: Exception) -> None:
        with self._lock:
            self.failures.append(f"{time.strftime('%T')} {error!r}")

    def report(self) -> dict[str, object]:
        with self._lock:
            return {
                "versions": dict(self.versions),
                "slowest": round(self.slowest, 3),
                "failed": len(self.failures),
                "failures": self.failures[:5],
            }


def call_in_threads(make_client: Callable[[], TfRpcClient], calls: Calls, stopped: threading.Event) -> None:
    """Call from `CALLERS` threads until stopped."""

    def run() -> None:
        while not stopped.is_set():
            x, start = calls.next_input(), time.monotonic()
            try:
                calls.add(x, client.infer({"x": x}), time.monotonic() - start)
            except Exception as error:  # noqa: BLE001 - every failure counts
                calls.add_failure(error)
            stopped.wait(PAUSE)

    with make_client() as client:
        threads = [threading.Thread(target=run) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


async def call_in_tasks(
    make_client: Callable[[], AsyncTfRpcClient], calls: Calls, stopped: threading.Event
) -> None:
    """Call from `CALLERS` tasks until stopped."""

    async def run() -> None:
        while not stopped.is_set():
            x, start = calls.next_input(), time.monotonic()
            try:
                calls.add(x, await client.infer({"x": x}), time.monotonic() - start)
            except Exception as error:  # noqa: BLE001 - every failure counts
                calls.add_failure(error)
            await asyncio.sleep(PAUSE)

    async with make_client() as client:
        await asyncio.gather(*(run() for _ in range(CALLERS)))


def connected_servers(port: int) -> list[str]:
    """The addresses, in hexadecimal, to which this process has connections on a port."""
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # without IPv6
            for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]:
                _, _, remote, state = line.split()[:4]
                host, _, remote_port = remote.partition(":")
                if state == ESTABLISHED and int(remote_port, 16) == port:
                    found.add(host[-8:])
    return sorted(found)


def main(address: str, model: str, ca: str | None = None, token_file: str | None = None) -> None:
    """Call until SIGTERM."""
    port = int(address.rpartition(":")[2])
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
    options: dict[str, Any] = {"tls": Tls(ca=ca)} if ca else {}
    if token_file:
        options["metadata"] = {"authorization": f"Bearer {Path(token_file).read_text().strip()}"}
    blocking, asynchronous = Calls(), Calls()

    def run_tasks() -> None:
        asyncio.run(call_in_tasks(lambda: AsyncTfRpcClient(address, model, **options), asynchronous, stopped))

    def run_threads() -> None:
        call_in_threads(lambda: TfRpcClient(address, model, **options), blocking, stopped)

    threads = [threading.Thread(target=run_threads), threading.Thread(target=run_tasks)]
    for thread in threads:
        thread.start()

    def report() -> None:
        clients = {"blocking": blocking.report(), "asyncio": asynchronous.report()}
        print(json.dumps({"clients": clients, "servers": connected_servers(port)}), flush=True)

    while not stopped.wait(0.5):
        report()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
