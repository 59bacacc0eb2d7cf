"""MkDocs hook: builds the site from docs/ and the Markdown files outside it.

The pages link to each other with paths of the repository, so that the links also work on a code host. MkDocs
accepts only files of one directory. This hook copies the pages to build/docs, changes the links accordingly,
and lets MkDocs build from there.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGING = ROOT / "build" / "docs"

# Files outside docs/ that become part of the site.
OUTSIDE = {
    "README.md": "index.md",
    "README.zh-CN.md": "index.zh.md",
    **{
        name: name
        for name in (
            "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "models/models.config",
            "benchmarks/client.md", "benchmarks/client.png", "benchmarks/server.md", "benchmarks/server.png",
            "benchmarks/capacity.md", "benchmarks/capacity.png", "benchmarks/capacity-replicas.png",
            "benchmarks/tune.md", "benchmarks/tune.png", "benchmarks/tune-models.png",
            "benchmarks/swaps.md", "benchmarks/swaps.png",
        )
    },
}  # fmt: skip

# Text, path and anchor of a link to another file.
_LINK = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)([^)\s]*)\)")
# The site has its own language selector.
_LANGUAGE_LINK = re.compile(r"^\[(?:中文|English)\]\(\S+\)\n\n", re.M)


def on_config(config):
    """Copy the pages and let MkDocs read the copies. MkDocs calls this once for each language."""
    pages = [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*") if path.is_file()]
    places = {name: name.removeprefix("docs/") for name in pages} | OUTSIDE
    shutil.rmtree(STAGING, ignore_errors=True)
    for name, place in places.items():
        target = STAGING / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".md"):
            target.write_text(_convert((ROOT / name).read_text(), name, places))
        else:
            shutil.copy(ROOT / name, target)
    config.docs_dir = str(STAGING)
    return config


def _convert(text: str, name: str, places: dict[str, str]) -> str:
    """The text of a page with each link changed to the target's path in the site.

    A link to a file that is not part of the site becomes its text. A broken link stays, and the strict build
    fails.
    """

    def convert_link(match: re.Match[str]) -> str:
        words, path, anchor = match.groups()
        target = os.path.normpath(os.path.join(os.path.dirname(name), path))
        if target not in places and (ROOT / target).exists():
            return words
        place = os.path.relpath(places.get(target, target), os.path.dirname(places[name]) or ".")
        return f"[{words}]({place}{anchor})"

    return _LINK.sub(convert_link, _LANGUAGE_LINK.sub("", text))
