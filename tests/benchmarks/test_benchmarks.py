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
    out = tmp_path / "new" / "directory"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_row_names(out / f"{name}.md") | not_quick == read_row_names(BENCHMARKS / f"{name}.md")
    assert (out / f"{name}.png").stat().st_size > 1000
    assert (out / f"{name}.json").stat().st_size > 1000


@pytest.mark.parametrize("name", ["client", "server", "swaps", "tune", "compare", "capacity"])
def test_an_output_directory_that_cannot_be_created_is_an_error_before_the_measurement(name, tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", f"benchmarks.{name}", f"--out={tmp_path}/file/new"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert (
        f"argument --out: cannot create the directory '{tmp_path}/file/new': Not a directory" in done.stderr
    )


def read_row_names(page: Path) -> set[str]:
    """Read the first column; numbers, such as those of swaps, may differ between runs."""
    lines = [line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| ")]
    return {re.sub(r"\d+", "0", line) for line in lines}
