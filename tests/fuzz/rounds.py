"""Fuzzing for a time: hypothesis in rounds, each with a seed of its own, until the time is over.

TFSERVING_FUZZ_SECONDS says for how long in all (default: 60), TFSERVING_FUZZ_SEED where the seeds begin
(default: anywhere). What fails says its seed; with it the same comes again, and at once.
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

# The tests that share the time.
TESTS = 12
_EXAMPLES = 200

_SETTINGS = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    database=None,
    print_blob=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def fuzz(
    strategy: SearchStrategy[Any], check: Callable[[Any], None], seconds: float = SECONDS / TESTS
) -> None:
    """Checks examples of the strategy, round after round; at least one round, whatever the time."""
    end = time.monotonic() + seconds
    number = SEED
    while True:
        try:
            seed(number)(_SETTINGS(given(strategy)(lambda example: check(example))))()
        except BaseException:
            print(f"in the round of TFSERVING_FUZZ_SEED={number}")
            raise
        number += 1
        if time.monotonic() > end:
            return
