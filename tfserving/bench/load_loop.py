"""The loop of a load process: sends requests in a closed or an open loop and records their times."""

from __future__ import annotations

import select
import selectors
import ssl
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfserving.bench import grpc_connection, http1_connection
from tfserving.bench.load_connection import ConnectionLostError, LoadConnection, LoadTarget

# Seconds between two reports, and between two checks for requests that take too long.
_TICK = 0.1
# Seconds before a connection that was lost is opened again.
_RECONNECT_PAUSE = 0.05
_DRAWN = 1024
# Different messages that are counted; the others are counted as one.
_MOST_ERRORS = 50
_LONGEST_ERROR = 300


@dataclass(frozen=True)
class LoadPlan:
    """What a process sends.

    Attributes:
        targets: servers; connections are spread over them.
        is_grpc: gRPC instead of REST.
        requests: the path and the body of each request; they are sent in turn.
        connections: in a closed loop, the number of callers. In an open loop, the most connections.
        rate: requests per second in an open loop; None for a closed loop.
        is_poisson: in an open loop, times between requests are exponentially distributed, not constant.
        timeout: seconds for a request.
        seed: for random times.
    """

    targets: tuple[LoadTarget, ...]
    is_grpc: bool
    requests: tuple[tuple[str, bytes], ...]
    connections: int
    rate: float | None
    is_poisson: bool
    timeout: float
    seed: int


@dataclass(frozen=True)
class LoadReport:
    """What happened since the last report.

    Attributes:
        samples: four float64 for each completed request: the time when it was due, when the loop noticed
            that, when its response was complete, and its outcome, an index in `outcomes`.
        outcomes: "" for success, and the errors so far.
        start, end: the period.
        waited: seconds in which the loop waited for something to happen.
        cpu: seconds of CPU that the process used.
        delayed: seconds in which the process was ready to run, but other programs used the CPUs.
        wakeups: how often the process began to run.
        connections: the number of open connections.
    """

    samples: bytes
    outcomes: tuple[str, ...]
    start: float
    end: float
    waited: float
    cpu: float
    delayed: float
    wakeups: int
    connections: int


class LoadLoop:
    """Sends the requests of a plan until `stop`, and reports every 0.1 s.

    Args:
        plan: what to send.
        control: a file descriptor that becomes readable when the loop should stop.
        report: called with what happened.
    """

    def __init__(self, plan: LoadPlan, control: int, report: Callable[[LoadReport], None]) -> None:
        self._plan = plan
        self._report = report
        self._clock = time.monotonic
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)
        module = grpc_connection if plan.is_grpc else http1_connection
        self._connection_class: Any = (
            grpc_connection.GrpcConnection if plan.is_grpc else http1_connection.Http1Connection
        )
        self._requests = {
            target: [module.prepare(target, path, body) for path, body in plan.requests]
            for target in set(plan.targets)
        }
        self._contexts = {target: _context_for(target, plan.is_grpc) for target in set(plan.targets)}
        self._turn = plan.seed
        self._opened = 0
        self._connections: set[LoadConnection] = set()
        self._idle: list[LoadConnection] = []
        self._is_opening = False  # in an open loop, one connection at a time
        self._queue: deque[tuple[float, float]] = deque()
        self._reconnects: deque[float] = deque()
        self._arrivals = iter(())  # type: Iterator[float]
        self._next_due = float("inf")
        self._is_stopping = False
        self._samples = array("d")
        self._outcomes = {"": 0}
        self._waited = 0.0

    def run(self) -> None:
        """Run until the control descriptor is readable and the requests in flight are complete."""
        try:
            self._run()
        finally:
            for connection in self._connections:
                connection.close()
            self._selector.close()

    def _run(self) -> None:
        clock, plan = self._clock, self._plan
        for _ in range(plan.connections if plan.rate is None else 1):
            self._open_connection()
        if plan.rate is not None:
            self._arrivals = _arrivals(clock(), plan.rate, plan.is_poisson, plan.seed)
            self._next_due = next(self._arrivals)
        start, used = clock(), _read_usage()
        while True:
            now = clock()
            events = self._wait(max(0.0, min(self._next_due, start + _TICK) - now))
            self._waited += clock() - now
            for key, mask in events:
                if key.data is None:
                    self._selector.unregister(key.fileobj)
                    self._take_arrivals(clock())
                    self._is_stopping = True
                    self._next_due = float("inf")
                else:
                    self._handle(key.data, mask)
            now = clock()
            if self._next_due <= now:
                self._take_arrivals(now)
            if now >= start + _TICK:
                self._check_connections(now)
                before, used = used, _read_usage()
                self._send_report(
                    start, now, [after - each for each, after in zip(before, used, strict=True)]
                )
                start = now
                if (
                    self._is_stopping
                    and not self._queue
                    and not any(one.is_busy for one in self._connections)
                ):
                    return

    def _wait(self, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
        # The selector rounds up to milliseconds. select() does not, and a selector can be waited for.
        if self._plan.rate is not None and timeout > 0:
            select.select([self._selector.fileno()], [], [], timeout)
            timeout = 0
        return self._selector.select(timeout)

    def _handle(self, connection: LoadConnection, mask: int) -> None:
        try:
            outcome = connection.handle(mask)
        except ConnectionLostError as error:
            self._lose(connection, str(error))
            return
        if outcome is not None:
            end = self._clock()
            self._record(connection.due, connection.noticed, end, outcome)
            self._continue(connection, end)

    def _continue(self, connection: LoadConnection, now: float) -> None:
        """Send the next request on a connection that is not busy."""
        if not connection.is_reusable:
            self._drop(connection)
            if not self._is_stopping or self._queue:
                self._reconnects.append(now)
                self._reconnect(now)
        elif self._queue:
            self._start(connection, *self._queue.popleft())
        elif self._plan.rate is None and not self._is_stopping:
            self._start(connection, now, now)
        else:
            self._idle.append(connection)

    def _start(self, connection: LoadConnection, due: float, noticed: float) -> None:
        connection.due, connection.noticed = due, noticed
        requests = self._requests[connection.target]
        self._turn += 1
        try:
            connection.start(requests[self._turn % len(requests)])
        except ConnectionLostError as error:
            self._lose(connection, str(error))

    def _take_arrivals(self, now: float) -> None:
        while self._next_due <= now:
            if self._idle:
                self._start(self._idle.pop(), self._next_due, now)
            else:
                self._queue.append((self._next_due, now))
                self._grow()
            self._next_due = next(self._arrivals)
            now = self._clock()

    def _grow(self) -> None:
        """In an open loop, open a connection for requests that wait for one."""
        if self._queue and not self._is_opening and len(self._connections) < self._plan.connections:
            self._is_opening = True
            self._open_connection()

    def _open_connection(self) -> None:
        targets = self._plan.targets
        target = targets[self._opened % len(targets)]
        self._opened += 1
        try:
            self._connections.add(
                self._connection_class(target, self._contexts[target], self._selector, self._on_open)
            )
        except ConnectionLostError as error:
            self._fail_to_open(str(error))

    def _on_open(self, connection: LoadConnection) -> None:
        self._is_opening = False
        self._continue(connection, self._clock())
        if self._plan.rate is not None:
            self._grow()

    def _fail_to_open(self, reason: str) -> None:
        """Count the request of the caller that has no connection, and try again later."""
        now = self._clock()
        self._is_opening = False
        if self._plan.rate is None:
            self._record(now, now, now, f"UNAVAILABLE: {reason}")
        self._reconnects.append(now + _RECONNECT_PAUSE)

    def _lose(self, connection: LoadConnection, reason: str) -> None:
        self._drop(connection)
        if connection.is_busy:
            self._record(connection.due, connection.noticed, self._clock(), f"UNAVAILABLE: {reason}")
            self._reconnects.append(self._clock() + _RECONNECT_PAUSE)
        elif connection in self._idle:
            self._idle.remove(connection)
            self._reconnects.append(self._clock() + _RECONNECT_PAUSE)
        else:
            self._fail_to_open(reason)

    def _drop(self, connection: LoadConnection) -> None:
        self._connections.discard(connection)
        connection.close()

    def _reconnect(self, now: float) -> None:
        for _ in range(len(self._reconnects)):
            due = self._reconnects.popleft()
            if due > now:
                self._reconnects.append(due)
            elif len(self._connections) < self._plan.connections:
                self._open_connection()

    def _check_connections(self, now: float) -> None:
        """End requests that take too long, and open connections again."""
        oldest = now - self._plan.timeout
        limit = f"DEADLINE_EXCEEDED: no response after {self._plan.timeout:g} s"
        for connection in [one for one in self._connections if one.is_busy and one.due < oldest]:
            self._record(connection.due, connection.noticed, now, limit)
            self._drop(connection)
            self._reconnects.append(now)
        while self._queue and self._queue[0][0] < oldest:
            self._record(*self._queue.popleft(), now, limit)
        if not self._is_stopping or self._queue:
            self._reconnect(now)

    def _record(self, due: float, noticed: float, end: float, outcome: str) -> None:
        code = self._outcomes.get(outcome)
        if code is None:
            text = outcome[:_LONGEST_ERROR]
            if len(self._outcomes) > _MOST_ERRORS:
                text = "other errors"
            code = self._outcomes.setdefault(text, len(self._outcomes))
        self._samples.extend((due, noticed, end, code))

    def _send_report(self, start: float, end: float, used: list[float]) -> None:
        cpu, delayed, wakeups = used
        self._report(
            LoadReport(
                samples=self._samples.tobytes(),
                outcomes=tuple(self._outcomes),
                start=start,
                end=end,
                waited=self._waited,
                cpu=cpu,
                delayed=delayed,
                wakeups=int(wakeups),
                connections=len(self._connections),
            )
        )
        self._samples, self._waited = array("d"), 0.0


def _read_usage() -> tuple[float, float, float]:
    """Seconds of CPU and of waiting for a CPU, and the number of times that this process began to run."""
    try:
        with open("/proc/self/schedstat", encoding="ascii") as file:
            _, delayed, wakeups = map(int, file.read().split())
    except (OSError, ValueError):  # only on Linux
        delayed = wakeups = 0
    return time.process_time(), delayed / 1e9, wakeups


def _arrivals(start: float, rate: float, is_poisson: bool, seed: int) -> Iterator[float]:
    """The times at which requests are due."""
    rng = np.random.default_rng(seed)
    due = start
    while True:
        pauses = rng.exponential(1 / rate, _DRAWN) if is_poisson else np.full(_DRAWN, 1 / rate)
        times = due + np.cumsum(pauses)
        yield from times.tolist()
        due = float(times[-1])


def _context_for(target: LoadTarget, is_grpc: bool) -> ssl.SSLContext | None:
    if target.tls_name is None:
        return None
    context = ssl.create_default_context(cafile=target.ca)
    if target.certificate is not None:
        context.load_cert_chain(target.certificate, target.key)
    context.set_alpn_protocols(["h2" if is_grpc else "http/1.1"])
    return context
