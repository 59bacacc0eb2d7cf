"""The benchmarks run, and the committed results have the same rows. No test judges a result."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.embedded import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "not_quick", "tools"),
    [
        ("client", {"base install"}, ()),
        ("server", set(), ("h2load",)),
    ],
)
def test_a_quick_run_has_the_rows_of_the_committed_results(name, not_quick, tools, tmp_path):
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (Debian: nghttp2-client)")
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_row_names(tmp_path / f"{name}.md") | not_quick == read_row_names(BENCHMARKS / f"{name}.md")
    assert (tmp_path / f"{name}.png").stat().st_size > 1000
    assert (tmp_path / f"{name}.json").stat().st_size > 1000


def read_row_names(page: Path) -> set[str]:
    """Read the first column; numbers, such as those of swaps, may differ between runs."""
    lines = [line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| ")]
    return {re.sub(r"\d+", "0", line) for line in lines}
