"""README.md and every page of the guide have a Chinese twin with the same commands, output and structure."""

from __future__ import annotations

import pytest

from tests.docs.pages import Page, chinese_twin, guide_pages, read_page

TRANSLATED = ["README.md", *guide_pages()]


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_chinese_page_has_the_same_blocks(name: str) -> None:
    english, chinese = read_page(name), read_page(chinese_twin(name))
    blocks = [(block.language, block.text) for block in english.blocks]
    assert [(block.language, block.text) for block in chinese.blocks] == blocks


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_chinese_page_has_the_same_structure(name: str) -> None:
    english, chinese = read_page(name), read_page(chinese_twin(name))
    assert structure(english) == structure(chinese)


def structure(page: Page) -> tuple[object, ...]:
    levels = [level for level, _ in page.headings]
    shapes = [(len(table), len(table[0])) for table in page.tables]
    return levels, shapes, page.prose.count("\n- ")


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_chinese_page_links_to_the_chinese_twins(name: str) -> None:
    english, chinese = read_page(name), read_page(chinese_twin(name))
    # The first link of a page leads to the other language.
    assert sorted(map(localize, paths(english)[1:])) == sorted(paths(chinese)[1:])


def paths(page: Page) -> list[str]:
    """Targets in other files, without anchors."""
    return [link.partition("#")[0] for link in page.links if not link.startswith("#")]


def localize(link: str) -> str:
    """The target that a Chinese page has in place of this one."""
    pages = {name.rpartition("/")[2]: name for name in guide_pages()}
    is_page = link.rpartition("/")[2] in pages and "benchmarks/" not in link
    return chinese_twin(link) if is_page else link
