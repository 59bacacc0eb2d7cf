"""What the embedded server costs: python -m benchmarks.server [--quick] [MEASURE ...]

Ratios of medians of interleaved rounds in one run, so that a busy machine slows all sides. Load comes from
h2load (Debian: nghttp2-client). Prints the table, and writes server.md, server.json and server.png beside
this package, or to --out. Needs requirements.txt.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report import Row, arguments_of, write
from benchmarks.server.measures import MEASURES, QUICK, Effort
from benchmarks.server.servers import ROOT

PAGE = """# The embedded server

Made by `python -m benchmarks.server`: medians of {rounds} interleaved rounds or more in one run,
load by h2load.
{machine}.

{table}

✗: the limit does not hold in this run.

Beside the model, a call of the MobileNetV2 over gRPC takes what the transport of its 600 kB takes after the
pause in which the model ran. That has a row of its own: an empty handler, without any model. JSON adds
150,000 numbers of 18 digits, to be received, read and checked. Neither grows with the model: the quicker a
machine runs the model, the larger these two ratios. The speed of a shared machine wavers: trust ratios more
than times, and several runs more than one.

![ratios against their limits](server.png)
"""


def main() -> int:
    """The command; see --help."""
    arguments = arguments_of("benchmarks.server", __doc__, list(MEASURES))
    effort = QUICK if arguments.quick else Effort()
    rows = _measure(arguments.measures or list(MEASURES), effort)
    write(arguments.out / "server", PAGE, rows, {"rounds": effort.rounds})
    return 0


def _measure(names: Sequence[str], effort: Effort) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        command = [sys.executable, "-m", "benchmarks.server.models", str(models)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        for name in names:
            directory = Path(temporary) / name
            directory.mkdir()
            yield from MEASURES[name](models, directory, effort)


if __name__ == "__main__":
    sys.exit(main())
