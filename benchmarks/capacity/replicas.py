"""Simulate how many replicas a service needs: python -m benchmarks.capacity.replicas --rate N --p99 SECONDS

Service times are exponentially distributed, unless --constant. Prints the number for each policy.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.capacity import study
from benchmarks.capacity.simulation import constant, exponential


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(prog="benchmarks.capacity.replicas", description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, required=True, metavar="N", help="calls per second")
    parser.add_argument(
        "--p99",
        type=float,
        required=True,
        metavar="SECONDS",
        help="limit of the 99th percentile of the latency",
    )
    parser.add_argument(
        "--service-time",
        type=float,
        required=True,
        metavar="SECONDS",
        help="for which a call occupies a server",
    )
    parser.add_argument("--constant", action="store_true", help="every call takes the same time")
    parser.add_argument("--calls", type=int, default=10_000, metavar="N", help="to simulate (default: 10000)")
    arguments = parser.parse_args()
    for name in ("rate", "p99", "service_time", "calls"):
        if not 0 < getattr(arguments, name) < float("inf"):
            parser.error(f"--{name.replace('_', '-')}={getattr(arguments, name):g} is not above 0")
    times = (constant if arguments.constant else exponential)(arguments.service_time)
    for policy, who in study.RECOMMENDED:
        found = study.find_replicas(
            policy, who, arguments.rate, arguments.p99, times, arguments.calls, mean=arguments.service_time
        )
        print(f"{policy}, {who}: {'no number is enough' if found is None else found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
