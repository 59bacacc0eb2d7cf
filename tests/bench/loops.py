"""Runs a load loop in a thread, and a server that sends scripted bytes."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from tfserving.bench.load_connection import LoadTarget
from tfserving.bench.load_loop import LoadLoop, LoadPlan, LoadReport

# Seconds, long enough for a busy machine.
TIMEOUT = 30.0


def target_for(port: int, **options) -> LoadTarget:
    return LoadTarget(socket.AF_INET, ("127.0.0.1", port), f"127.0.0.1:{port}", **options)


def plan_for(port: int, requests: Sequence[tuple[str, bytes]], *, is_grpc: bool, **options) -> LoadPlan:
    given = {"connections": 1, "rate": None, "is_poisson": False, "timeout": 10.0, "seed": 0, **options}
    targets = given.pop("targets", (target_for(port),))
    return LoadPlan(targets=targets, is_grpc=is_grpc, requests=tuple(requests), **given)


class Reports(list[LoadReport]):
    """The reports of a loop."""

    @property
    def samples(self) -> np.ndarray:
        """A row for each request: due, noticed, end, outcome."""
        return np.concatenate([np.frombuffer(each.samples).reshape(-1, 4) for each in list(self)])

    @property
    def outcomes(self) -> Counter[str]:
        """The number of requests by outcome."""
        return Counter(self[-1].outcomes[int(code)] for code in self.samples[:, 3])


def run_loop(plan: LoadPlan, is_done: Callable[[Reports], bool]) -> Reports:
    """Run a loop until a report after which `is_done`, and until the requests in flight are complete."""
    reading, writing = os.pipe()
    reports = Reports()
    done = threading.Event()

    def report(one: LoadReport) -> None:
        reports.append(one)
        if is_done(reports):
            done.set()

    thread = threading.Thread(target=LoadLoop(plan, reading, report).run)
    thread.start()
    try:
        assert done.wait(TIMEOUT), f"not done within {TIMEOUT:g} s: {reports.outcomes}"
    finally:
        os.write(writing, b"x")
        thread.join(TIMEOUT)
        os.close(reading)
        os.close(writing)
    assert not thread.is_alive()
    return reports


def count_is(number: int) -> Callable[[Reports], bool]:
    """Whether so many requests are complete."""
    return lambda reports: len(reports.samples) >= number


@contextmanager
def scripted_server(pieces: Sequence[bytes], end: bytes = b"}") -> Iterator[int]:
    """A server that sends these pieces for each request, whose body ends with `end`. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(peer: socket.socket) -> None:
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := peer.recv(65536):
                    if data.endswith(end):
                        for piece in pieces:
                            peer.sendall(piece)
                        if not pieces:
                            return

        def accept() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
