"""The benchmarks run, and the committed figures have every row; what they measure is for people to judge."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "rows", "needs"),
    [
        # its size is measured from the package index, and not when it must be quick
        ("client", {"base install"}, ()),
        ("server", set(), ("h2load",)),
    ],
)
def test_a_benchmark_runs_and_has_the_rows_of_its_committed_figures(name, rows, needs, tmp_path):
    for tool in needs:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (Debian: nghttp2-client)")
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert rows_of(tmp_path / f"{name}.md") | rows == rows_of(BENCHMARKS / f"{name}.md")
    assert (tmp_path / f"{name}.png").stat().st_size > 1000
    assert (tmp_path / f"{name}.json").stat().st_size > 1000


def rows_of(page):
    """What is measured, without figures, of which some are the run's, such as the numbers of its swaps."""
    lines = [line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| ")]
    return {re.sub(r"\d+", "0", line) for line in lines}
