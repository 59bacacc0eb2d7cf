"""Markdown pages as the tests of the documentation need them."""

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
        text: the content, with a line break at its end.
        line: number of the first line of the content in the page, from 1.
        is_output: whether the block directly follows another one, without text between them.
    """

    language: str
    text: str
    line: int
    is_output: bool


class Page:
    """A Markdown file of the repository."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = ROOT / name
        self.text = self.path.read_text(encoding="utf-8")
        self.blocks: list[Block] = []
        prose: list[str] = []
        content: list[str] | None = None
        language, is_output = "", False
        for number, line in enumerate(self.text.splitlines(), 1):
            fence = _FENCE.match(line)
            if content is None and fence:
                language, content = fence[1], []
            elif content is None:
                is_output = is_output and not line.strip()
                prose.append(line)
            elif line == "```":
                text = "".join(f"{each}\n" for each in content)
                self.blocks.append(Block(language, text, number - len(content), is_output))
                content, is_output = None, True
            else:
                content.append(line)
        assert content is None, f"{name}: the last fence is not closed"
        self.prose = "\n".join(prose)

    def blocks_in(self, *languages: str) -> list[Block]:
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
        """Anchors of the headings, as GitHub generates them."""
        return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for _, text in self.headings}

    @cached_property
    def tables(self) -> list[list[list[str]]]:
        """The rows of each table, head and separator included, as lists of cells."""
        found: list[list[list[str]]] = [[]]
        for line in self.prose.splitlines():
            if line.startswith("|"):
                cells = re.split(r"(?<!\\)\|", line.strip("|"))
                found[-1].append([cell.strip() for cell in cells])
            elif found[-1]:
                found.append([])
        return [table for table in found if table]

    def table_with(self, key: str) -> dict[str, list[str]]:
        """The table that has `key` as a first cell: the other cells of its rows by their first cell."""
        for table in self.tables:
            rows = {first: others for first, *others in table}
            if key in rows:
                return rows
        raise AssertionError(f"{self.name} has no table with a row {key}")


@cache
def read_page(name: str) -> Page:
    return Page(name)


def guide_pages() -> list[str]:
    """The English pages of the guide, in the order in which README.md lists them."""
    return [link for link in read_page("README.md").links if link.startswith("docs/guide/")]


def chinese_twin(name: str) -> str:
    """The name of the Chinese version of a page."""
    return "README.zh-CN.md" if name == "README.md" else f"{name.removesuffix('.md')}.zh.md"


@cache
def settings() -> dict[str, str]:
    """The variables of lib/settings.sh and their defaults."""
    text = (ROOT / "lib" / "settings.sh").read_text()
    return dict(re.findall(r"^setting ([A-Z_]+) '?\"?([^'\"\n]*)", text, re.M))
