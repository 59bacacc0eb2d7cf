"""python -m tests.soak --seconds 600: the embedded server under everything at once; exit code 1 for faults.

Good and bad calls over both APIs, garbage and half-open sockets, new, broken and removed versions, edited
config files and reloads, all in parallel. Every answer is checked, and what the server holds.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Options, soak


def main() -> int:
    """The command; see --help."""
    parser = argparse.ArgumentParser(prog="tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: 600)")
    parser.add_argument("--seed", type=int, default=None, help="of what is done (default: another each time)")
    parser.add_argument("--callers", type=int, default=4, help="of each API (default: 4)")
    parser.add_argument("--batching", action="store_true", help="serve with --enable_batching")
    parser.add_argument("--directory", type=Path, help="keep models and logs there; must not exist yet")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or Path(temporary) / "soak"
        directory.mkdir(parents=True)
        faults = soak(
            Options(directory.absolute(), arguments.seconds, seed, arguments.callers, arguments.batching)
        )
    for fault in faults:
        print(f"tests.soak: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
