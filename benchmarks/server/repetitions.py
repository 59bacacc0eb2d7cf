"""How often the benchmarks of the server measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Repetitions:
    """How often to measure.

    Attributes:
        rounds: the number of rounds.
        seconds: the time of load for each server in a round.
        calls: the number of requests where the latency of one is measured.
        swaps: the first and the last swap between which memory is compared.
    """

    rounds: int = 5
    seconds: float = 2.0
    calls: int = 40
    swaps: tuple[int, int] = (20, 60)


QUICK = Repetitions(rounds=1, seconds=0.5, calls=2, swaps=(1, 2))
