"""What the embedded server costs: python -m benchmarks.server [--quick] [MEASURE ...]

Ratios of medians of interleaved rounds in one run, so that a busy machine slows all sides. Load comes from
h2load (Debian: nghttp2-client). Prints the table, and writes server.md, server.json and server.png into the
folder of this package's neighbours, or to --out. Needs requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
import numpy as np

from benchmarks.report import Row, plot, table
from benchmarks.server.measures import MEASURES, QUICK, Effort
from benchmarks.server.servers import ROOT

# One-minute load average above which figures are not worth much.
_QUIET = 0.3


def main() -> int:
    """The command; see --help."""
    parser = argparse.ArgumentParser(prog="benchmarks.server", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a moment for each: to see that it runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", metavar="DIR", help="where to write")
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"only these of {', '.join(MEASURES)}")
    arguments = parser.parse_args()
    unknown = set(arguments.measures) - MEASURES.keys()
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(MEASURES)}")
    busy = os.getloadavg()[0]
    if busy > _QUIET and not arguments.quick:
        print(
            f"benchmarks.server: the load average is {busy:.2f}: figures of a busy machine", file=sys.stderr
        )
    effort = QUICK if arguments.quick else Effort()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        command = [sys.executable, "-m", "benchmarks.server.models", str(models)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        for name in arguments.measures or MEASURES:
            directory = Path(temporary) / name
            directory.mkdir()
            for row in MEASURES[name](models, directory, effort):
                print(table([row]).splitlines()[-1], flush=True)
                rows.append(row)
    _write(arguments.out, rows, effort, busy)
    return 0


def _write(out: Path, rows: list[Row], effort: Effort, busy: float) -> None:
    machine = {
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load average at the start": round(busy, 2),
    }
    found = {"machine": machine, "rounds": effort.rounds, "rows": [row.as_json() for row in rows]}
    (out / "server.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "server.md").write_text(_page(rows, effort, machine), encoding="utf-8")
    plot(rows, out / "server.png")


def _page(rows: list[Row], effort: Effort, machine: dict[str, object]) -> str:
    return f"""# The embedded server

Made by `python -m benchmarks.server`: medians of {effort.rounds} interleaved rounds in one run, load by
h2load.
{", ".join(f"{name} {value}" for name, value in machine.items())}.

{table(rows)}

![ratios against their limits](server.png)
"""


if __name__ == "__main__":
    sys.exit(main())
