"""Soak test of the embedded server: load, malformed clients and changes of models at the same time.

Exits with code 1 if a response, the status or the memory of the server is wrong. See tests/soak/README.md.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Options, soak


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="length of the run (default: 600)")
    parser.add_argument("--seed", type=int, help="seed of all random choices (default: a random one)")
    parser.add_argument("--load-generators", type=int, default=4, help="number for each API (default: 4)")
    parser.add_argument("--batching", action="store_true", help="serve with --enable_batching")
    keep = "new directory in which to keep models and logs (default: keep them only after a failure)"
    parser.add_argument("--directory", type=Path, help=keep)
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    if arguments.directory is None:
        directory = Path(tempfile.mkdtemp(prefix="soak-"))
    else:
        directory = arguments.directory.absolute()
        directory.mkdir(parents=True)
    print(f"seed {seed}, models and logs in {directory}", flush=True)
    options = Options(directory, arguments.seconds, seed, arguments.load_generators, arguments.batching)
    failures = soak(options)
    for failure in failures:
        print(f"tests.soak: {failure}", file=sys.stderr)
    if not failures and arguments.directory is None:
        shutil.rmtree(directory)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
