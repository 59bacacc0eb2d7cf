"""What the capacity guide shows: a measured run beside its simulation, and simulations of more servers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.capacity.simulation import Scenario, ServiceTime, find_servers, measured, percentile, simulate

# Who chooses a server for each call: gateways that see half of all calls each, or many programs that see only
# their own. Pick first makes no sense behind a gateway, which would use one server.
GATEWAYS, DIRECT = "2 gateways", "8 clients for each server"
CHOICES = (
    ("pick first", DIRECT),
    ("round robin", DIRECT),
    ("round robin", GATEWAYS),
    ("power of two choices", DIRECT),
    ("power of two choices", GATEWAYS),
    ("least request", DIRECT),
    ("least request", GATEWAYS),
)
SIZES = (1, 2, 4, 16, 64, 256, 1024, 4096)
LOAD = 0.8
RATES = (10, 100, 1_000, 10_000, 100_000)
# Of the mean service time.
LIMITS = (3.0, 5.0)
# Those that a table of replicas compares.
RECOMMENDED = (
    ("round robin", DIRECT),
    ("round robin", GATEWAYS),
    ("power of two choices", GATEWAYS),
    ("least request", GATEWAYS),
)
# The mean service time in seconds for the table of replicas: about that of MobileNetV2 in server.md.
MEAN = 0.02
# No plan makes servers busier: near 1, short bursts are enough for long queues.
MAX_BUSY = 0.9


def count_clients(who: str, servers: int) -> int:
    """Return how many clients there are."""
    return 2 if who == GATEWAYS else 8 * servers


def compare_with_measurement(found: Mapping[str, Any], runs: int) -> list[dict[str, Any]]:
    """Simulate each measured run several times; return the percentiles of both in seconds.

    A simulated percentile has the median of the runs and the interval that has nine of ten of them.
    """
    sequential = found["service_times"]
    # What a call takes outside the server's only thread.
    outside = max(0.0, statistics.mean(sequential) - 1 / found["runs"][0]["throughput"])
    rows = []
    for run in found["runs"]:
        times = measured(sequential, mean=run["servers"] / run["throughput"])
        scenario = Scenario(run["servers"], run["rate"], times)
        latencies = [simulate(scenario, run["calls"], seed, skipped=0) for seed in range(runs)]
        row = {"servers": run["servers"], "load": run["load"]}
        for percent in (50, 99):
            values = sorted(percentile(each, percent) + outside for each in latencies)
            row[f"p{percent}"] = {
                "measured": run[f"p{percent}"],
                "simulated": round(statistics.median(values), 5),
                "interval": [round(percentile(values, 5), 5), round(percentile(values, 95), 5)],
            }
        rows.append(row)
    return rows


def grow(service_times: Sequence[float], sizes: Sequence[int], calls: int) -> list[dict[str, Any]]:
    """Return the percentiles of each policy and size at LOAD, in mean service times."""
    times = measured(service_times, mean=1.0)
    rows = []
    for policy, who in CHOICES:
        for servers in sizes:
            scenario = Scenario(servers, servers * LOAD, times, policy, count_clients(who, servers))
            latencies = simulate(scenario, calls, seed=servers)
            tails = {f"p{percent}": round(percentile(latencies, percent), 3) for percent in (50, 99)}
            rows.append({"policy": policy, "who": who, "servers": servers, **tails})
    return rows


def count_replicas(service_times: Sequence[float], rates: Sequence[int], calls: int) -> list[dict[str, Any]]:
    """Return the replicas that each rate and limit of the 99th percentile needs."""
    rows = []
    for policy, who in RECOMMENDED:
        for limit in LIMITS:
            for rate in rates:
                row = {"policy": policy, "who": who, "limit": limit * MEAN, "rate": rate}
                times = measured(service_times, mean=MEAN)
                replicas = find_replicas(policy, who, rate, limit * MEAN, times, calls)
                rows.append({**row, "replicas": replicas})
    return rows


def find_replicas(
    policy: str,
    who: str,
    rate: float,
    limit: float,
    service_time: ServiceTime,
    calls: int,
    mean: float = MEAN,
) -> int | None:
    """Return the smallest number of replicas with which the 99th percentile is within the limit."""

    def scenario(servers: int) -> Scenario:
        return Scenario(servers, rate, service_time, policy, count_clients(who, servers))

    return find_servers(scenario, limit, 99, calls, at_least=math.ceil(rate * mean / MAX_BUSY))
