"""Simulates calls to equal servers behind a load balancing policy, with simpy.

Calls begin at random times (a Poisson process). Each is made by one of several clients, which chooses a
server by its own policy and knows only its own calls. A server runs a fixed number of calls at the same time;
others wait in order of arrival.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

# Draws a service time in seconds.
ServiceTime = Callable[[random.Random], float]


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    Attributes:
        servers: how many.
        rate: calls per second of all clients together.
        service_time: seconds for which a call occupies a server.
        policy: a key of POLICIES.
        clients: how many choose servers independently of each other.
        at_the_same_time: how many calls a server runs at the same time.
    """

    servers: int
    rate: float
    service_time: ServiceTime
    policy: str = "round robin"
    clients: int = 1
    at_the_same_time: int = 1


class PickFirst:
    """Every call goes to one server, which the client picks once."""

    def __init__(self, servers: int, rng: random.Random) -> None:
        self._server = rng.randrange(servers)

    def choose(self) -> int:
        return self._server

    def finish(self, server: int) -> None:
        """Called when a call to the server has ended."""


class RoundRobin:
    """Servers in turn, from a random one."""

    def __init__(self, servers: int, rng: random.Random) -> None:
        self._servers = servers
        self._next = rng.randrange(servers)

    def choose(self) -> int:
        server = self._next
        self._next = (server + 1) % self._servers
        return server

    def finish(self, server: int) -> None:
        """Called when a call to the server has ended."""


class LeastRequest:
    """The server with the fewest calls of this client in flight; a random one of several."""

    def __init__(self, servers: int, rng: random.Random) -> None:
        self._servers = servers
        self._rng = rng
        # Only servers with calls: there may be thousands of clients and servers.
        self._in_flight: Counter[int] = Counter()

    def choose(self) -> int:
        is_one_idle = len(self._in_flight) < self._servers
        fewest = 0 if is_one_idle else min(self._in_flight.values())
        server = self._rng.randrange(self._servers)
        while self._in_flight[server] != fewest:
            server = self._rng.randrange(self._servers)
        self._in_flight[server] += 1
        return server

    def finish(self, server: int) -> None:
        """Called when a call to the server has ended."""
        _subtract(self._in_flight, server)


class PowerOfTwoChoices:
    """Of two random servers, the one with fewer calls of this client in flight."""

    def __init__(self, servers: int, rng: random.Random) -> None:
        self._servers = servers
        self._rng = rng
        self._in_flight: Counter[int] = Counter()

    def choose(self) -> int:
        first, second = (self._rng.randrange(self._servers) for _ in range(2))
        server = min(first, second, key=self._in_flight.__getitem__)
        self._in_flight[server] += 1
        return server

    def finish(self, server: int) -> None:
        """Called when a call to the server has ended."""
        _subtract(self._in_flight, server)


def _subtract(counter: Counter[int], server: int) -> None:
    counter[server] -= 1
    if not counter[server]:
        del counter[server]


POLICIES = {
    "pick first": PickFirst,
    "round robin": RoundRobin,
    "least request": LeastRequest,
    "power of two choices": PowerOfTwoChoices,
}


def simulate(scenario: Scenario, calls: int, seed: int, skipped: int | None = None) -> list[float]:
    """Return the latencies in seconds of this many calls, ascending.

    Args:
        skipped: how many calls at the beginning do not count, since the servers start idle; by default a
            tenth of the calls and 60 for each server.
    """
    if skipped is None:
        skipped = calls // 10 + 60 * scenario.servers
    rng = random.Random(seed)
    environment = simpy.Environment()
    # When each place of each server becomes free, as a heap.
    free_at = [[0.0] * scenario.at_the_same_time for _ in range(scenario.servers)]
    policies = [POLICIES[scenario.policy](scenario.servers, rng) for _ in range(scenario.clients)]
    latencies: list[float] = []

    def call() -> float:
        """Begin a call; return its latency, which is known since calls run in order of arrival."""
        policy = rng.choice(policies)
        chosen = policy.choose()
        places = free_at[chosen]
        end = max(environment.now, places[0]) + scenario.service_time(rng)
        heapq.heapreplace(places, end)
        latency = end - environment.now
        environment.timeout(latency).callbacks.append(lambda _: policy.finish(chosen))
        return latency

    def arrive() -> Iterator[Any]:
        for number in range(skipped + calls):
            yield environment.timeout(rng.expovariate(scenario.rate))
            latency = call()
            if number >= skipped:
                latencies.append(latency)

    environment.process(arrive())
    environment.run()
    return sorted(latencies)


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Return the smallest value that is not below this share of the values."""
    return ascending[max(0, -int(-len(ascending) * percent // 100) - 1)]


def constant(seconds: float) -> ServiceTime:
    """Every call takes the same time."""
    return lambda rng: seconds


def exponential(mean: float) -> ServiceTime:
    """Exponentially distributed times."""
    return lambda rng: rng.expovariate(1 / mean)


def measured(seconds: Sequence[float], mean: float | None = None) -> ServiceTime:
    """Times that were measured, each equally likely; scaled to this mean if there is one."""
    factor = 1.0 if mean is None else mean / (sum(seconds) / len(seconds))
    return lambda rng: rng.choice(seconds) * factor


def find_servers(
    scenario: Callable[[int], Scenario], limit: float, percent: float, calls: int, at_least: int
) -> int | None:
    """Return the smallest number of servers with which this percentile of the latency is within the limit.

    The number is exact up to 50 and within 2 % above. None if ten times `at_least` are not enough.

    Args:
        scenario: from the number of servers.
        limit: seconds.
        at_least: the smallest number to try.
    """

    def is_enough(servers: int) -> bool:
        return percentile(simulate(scenario(servers), calls, seed=servers), percent) <= limit

    high = max(1, at_least)
    low = high - 1
    step = max(1, high // 20)
    while not is_enough(high):
        if high > 10 * at_least:
            return None
        low, high, step = high, high + step, step * 2
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
