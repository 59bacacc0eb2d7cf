"""Report words and phrases of prose.txt in all tracked text: python .ci/check_prose.py [FILE ...]"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LIST = HERE / "prose.txt"
EXCLUDED = re.compile(r"LICENSE|\.ci/prose\.txt|.*\.(json|pb|png)")
# A space in a phrase also matches a line break, with the markers of comments and strings around it.
SPACE = r"""(?:[ \t]|"?\n[ \t]*(?:[#*>"-]|[rbf]")*[ \t]*)+"""


def main(arguments: list[str]) -> int:
    """Print FILE:LINE: WORD -> SUGGESTION for each hit; return 1 if there are any."""
    patterns = list(read_list())
    hits = 0
    for name in arguments or tracked_files():
        for number, word, suggestion in find_hits((ROOT / name).read_text(encoding="utf-8"), patterns):
            print(f"{name}:{number}: {word} -> {suggestion}")
            hits += 1
    return int(hits > 0)


def read_list() -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield the pattern and the suggestion of each line."""
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern, suggestion = line.split(" -> ")
            phrase = SPACE.join(re.split(r"(?<!there) ", pattern))
            yield re.compile(rf"(?<![a-z])(?:{phrase})(?![a-z])", re.IGNORECASE), suggestion


def tracked_files() -> list[str]:
    command = ["git", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in names.split("\0") if name and not EXCLUDED.fullmatch(name)]


def find_hits(text: str, patterns: list[tuple[re.Pattern[str], str]]) -> list[tuple[int, str, str]]:
    """Return the line number, the text and the suggestion of each match, in the order of the text."""
    hits = [
        (text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), suggestion)
        for pattern, suggestion in patterns
        for match in pattern.finditer(text)
    ]
    return sorted(hits)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
