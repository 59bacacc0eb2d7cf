""".ci/check_prose.py: the words and phrases that our texts do not use."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORD = "do" + "or"  # this file is checked too


def check(file: Path, text: str) -> tuple[int, list[str]]:
    """The exit code for a file with this text, and each hit as LINE: WORD -> SUGGESTION."""
    file.write_text(text)
    command = [sys.executable, ROOT / ".ci" / "check_prose.py", file]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    return result.returncode, result.stdout.replace(f"{file}:", "").splitlines()


@pytest.mark.parametrize(
    "word", [WORD, f"{WORD}s", f"{WORD.upper()}S", f"{WORD}_command", f"test_a_{WORD}_opens"]
)
def test_reports_a_word_in_text_and_in_names(tmp_path: Path, word: str) -> None:
    code, hits = check(tmp_path / "page.md", f"One.\n\nThe {word}.\n")
    assert code == 1
    (hit,) = hits
    assert re.fullmatch(rf"3: {WORD}s? -> script, entry point, command", hit, re.IGNORECASE)


@pytest.mark.parametrize(
    "text", ["It {} nobody.", "It {}\nnobody.", "    # It {}\n    # nobody.", 'f"It {} "\n    "nobody."']
)
def test_reports_a_phrase_across_lines(tmp_path: Path, text: str) -> None:
    code, hits = check(tmp_path / "code.py", text.format("answers"))
    assert code == 1
    assert [hit.partition(":")[0] for hit in hits] == ["1"]
    assert hits[0].endswith("-> accepts no requests")


@pytest.mark.parametrize(
    "text", ["The indoor outdoors amendment.", "There is no port.", "It is no longer here."]
)
def test_accepts_other_words(tmp_path: Path, text: str) -> None:
    assert check(tmp_path / "page.md", text) == (0, [])
