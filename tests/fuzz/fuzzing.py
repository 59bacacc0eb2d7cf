"""Runs Hypothesis for a given time instead of a given number of examples.

TFSERVING_FUZZ_SECONDS is the time of all tests together (default: 60), TFSERVING_FUZZ_SEED the first seed
(default: a random one). A test runs round after round, each with the next seed. A failure prints the seed of
its round; a run that starts with this seed fails in its first round.
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

# The number of tests that share the time.
TESTS = 12

_ROUND = settings(
    max_examples=200,
    deadline=None,
    database=None,
    print_blob=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def fuzz(
    strategy: SearchStrategy[Any], check: Callable[[Any], None], seconds: float = SECONDS / TESTS
) -> None:
    """Check examples of the strategy for some seconds, and for at least one round."""
    end = time.monotonic() + seconds
    number = SEED
    while True:
        try:
            seed(number)(_ROUND(given(strategy)(lambda example: check(example))))()
        except BaseException:
            print(f"failed in the round with TFSERVING_FUZZ_SEED={number}")
            raise
        number += 1
        if time.monotonic() > end:
            return
