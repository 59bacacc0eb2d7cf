"""The locked requirements: complete, with hashes, and the same versions everywhere."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIRECTORIES = ("", "docker/embedded/", "docs/", ".ci/")
ENTRY = re.compile(r"^([a-z0-9._-]+)==(\S+)(?: ; [^\\\n]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.M)


def normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(directory: str) -> dict[str, set[str]]:
    """The versions of each package in a requirements.txt; several if they depend on the Python version."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / directory / "requirements.txt").read_text(), flags=re.M)
    rest = ENTRY.sub("", text)
    assert not rest.strip(), f"not a version with hashes: {rest.strip()[:200]}"
    found: dict[str, set[str]] = {}
    for name, version, _ in ENTRY.findall(text):
        found.setdefault(normalize(name), set()).add(version)
    return found


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_every_direct_requirement_is_locked(directory: str) -> None:
    versions = locked(directory)
    lines = (ROOT / directory / "requirements.in").read_text().splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert normalize(name) in versions
            assert not version or versions[normalize(name)] == {version}


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_names_no_index(directory: str) -> None:
    text = (ROOT / directory / "requirements.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^-", text, re.M)


def test_files_agree_on_versions() -> None:
    combined: dict[str, set[str]] = {}
    for directory in DIRECTORIES:
        for name, versions in locked(directory).items():
            assert versions <= combined.setdefault(name, versions), (directory, name)


def test_contains_what_the_installed_packages_need() -> None:
    """Also what they need in turn, as far as it is installed here."""
    versions = locked("")
    for name in versions:
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in needed:
            if ";" not in requirement:  # others depend on the platform or on an extra
                match = re.match(r"[A-Za-z0-9._-]+", requirement)
                assert match is not None
                assert normalize(match[0]) in versions, f"{name} needs {requirement}"
