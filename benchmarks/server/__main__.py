"""Benchmark the embedded server: python -m benchmarks.server [--quick] [MEASURE ...]

Each ratio is of medians of rounds that alternate between the two sides, so that a slow phase of the machine
affects both. Prints the table, and writes server.md, server.json and server.png to benchmarks/ or --out.
Needs requirements.txt and h2load (Debian: nghttp2-client).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.interrupts import run_interruptible
from benchmarks.report import Row, arguments_of, write
from benchmarks.server.measures import MEASURES
from benchmarks.server.repetitions import QUICK, Repetitions
from benchmarks.server.servers import ROOT

PAGE = """# The embedded server

`python -m benchmarks.server` writes this page. Each number is the median of at least {rounds} rounds, which
alternate between the two sides. h2load generates the load.
{machine}.

{table}

✗: the ratio exceeds its limit in this run.

A MobileNetV2 request over gRPC takes the time of the model and the time to transport its 600 kB. The row
"transport" measures the latter with an empty handler that uses the CPU for the time of the model, since
threads respond more slowly after a pause. A JSON request has 150,000 numbers of 18 digits to receive, parse
and check. Both costs are constant: the faster a machine runs the model, the higher these ratios. The speed of
a shared machine varies: rely on ratios more than on times, and on several runs more than on one.

![each ratio as a share of its limit](server.png)
"""


def main() -> int:
    """Run the command; see --help."""
    arguments = arguments_of("benchmarks.server", __doc__, list(MEASURES))
    repetitions = QUICK if arguments.quick else Repetitions()
    rows = _measure(arguments.measures or list(MEASURES), repetitions)
    write(arguments.out / "server", PAGE, rows, {"rounds": repetitions.rounds})
    return 0


def _measure(names: Sequence[str], repetitions: Repetitions) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        command = [sys.executable, "-m", "benchmarks.server.benchmark_models", str(models)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        for name in names:
            directory = Path(temporary) / name
            directory.mkdir()
            yield from MEASURES[name](models, directory, repetitions)


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
