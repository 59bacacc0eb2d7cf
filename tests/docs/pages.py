"""A Markdown page as the tests of the documentation need it, and the variables that it should know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)$")
_HEADING = re.compile(r"^(#+) (.+)$")
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: the word after the fence.
        text: what is inside, with a line break at its end.
        line: of its first line in the page, from 1.
        alone: whether there is text between the block before it and this one.
    """

    language: str
    text: str
    line: int
    alone: bool


class Page:
    """A Markdown file of the repository."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = ROOT / name
        self.text = self.path.read_text(encoding="utf-8")
        self.blocks: list[Block] = []
        prose: list[str] = []
        inside: list[str] | None = None
        language, alone = "", True
        for number, line in enumerate(self.text.splitlines(), 1):
            fence = _FENCE.match(line)
            if inside is None and fence:
                language, inside = fence[1], []
            elif inside is None:
                alone = alone or bool(line.strip())
                prose.append(line)
            elif line == "```":
                text = "".join(f"{each}\n" for each in inside)
                self.blocks.append(Block(language, text, number - len(inside), alone))
                inside, alone = None, False
            else:
                inside.append(line)
        assert inside is None, f"{name}: the last fence is not closed"
        self.prose = "\n".join(prose)

    def of(self, *languages: str) -> list[Block]:
        """The blocks in these languages."""
        return [block for block in self.blocks if block.language in languages]

    @cached_property
    def spans(self) -> list[str]:
        """Inline code."""
        return _SPAN.findall(self.prose)

    @cached_property
    def links(self) -> list[str]:
        """Targets of links."""
        return _LINK.findall(_SPAN.sub("", self.prose))

    @cached_property
    def headings(self) -> list[tuple[int, str]]:
        """Level and text of each heading."""
        matches = map(_HEADING.match, self.prose.splitlines())
        return [(len(match[1]), match[2]) for match in matches if match]

    @cached_property
    def anchors(self) -> set[str]:
        """What a link into the page may name, as GitHub makes it of the headings."""
        return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for _, text in self.headings}

    def table(self, key: str) -> dict[str, list[str]]:
        """The table that has a row beginning with `key`: its rows' other cells by their first one."""
        rows: dict[str, list[str]] = {}
        for line in [*self.prose.splitlines(), ""]:
            if line.startswith("|"):
                first, *others = (cell.strip() for cell in line.strip("|").split("|"))
                rows[first] = others
            elif key in rows:
                return rows
            else:
                rows = {}
        raise AssertionError(f"{self.name} has no table with a row {key}")


@cache
def settings() -> dict[str, str]:
    """The variables of lib/settings.sh and their defaults."""
    text = (ROOT / "lib" / "settings.sh").read_text()
    return dict(re.findall(r"^setting ([A-Z_]+) '?\"?([^'\"\n]*)", text, re.M))
