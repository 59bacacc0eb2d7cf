"""Runs Hypothesis for a given time instead of a given number of examples.

TFSERVING_FUZZ_SECONDS is the time of all selected tests together (default: 60), TFSERVING_FUZZ_SEED the
first seed (default: a random one). A test runs round after round, each with the next seed. A failure prints
the seed of its round; a run that starts with this seed fails in its first round.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

SECONDS = float(os.environ.get("TFSERVING_FUZZ_SECONDS") or 60)
SEED = int(os.environ.get("TFSERVING_FUZZ_SEED") or random.randrange(10**9))

_ROUND = settings(
    max_examples=200,
    deadline=None,
    database=None,
    print_blob=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def run(strategy: SearchStrategy[Any], check: Callable[[Any], None], seconds: float) -> None:
    """Check examples of the strategy for some seconds, and for at least one round; print their number."""
    began = time.monotonic()
    number = SEED
    examples = 0

    def count_and_check(example: Any) -> None:
        nonlocal examples
        examples += 1
        check(example)

    while True:
        try:
            seed(number)(_ROUND(given(strategy)(lambda example: count_and_check(example))))()
        except BaseException:
            print(f"failed in the round with TFSERVING_FUZZ_SEED={number}")
            raise
        if time.monotonic() > began + seconds:
            break
        number += 1
    print(f"{examples:,} examples in {time.monotonic() - began:.0f} s, seeds {SEED} to {number}")
