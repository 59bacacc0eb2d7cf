"""Fixtures and settings for all tests."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.embedded import ROOT
from tests.versioned_model import VersionedModel

# A slow example does not fail on a busy machine.
settings.register_profile("tfserving", deadline=None)
settings.load_profile("tfserving")

# Files that take minutes. Started last, one of them would run alone while the other workers are idle.
LONG_FILES = (
    "docs/test_commands_with_docker.py",
    "docs/test_commands.py",
    "benchmarks/test_benchmarks.py",
    "soak/test_soak.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long files first."""

    def position(item: pytest.Item) -> int:
        name = item.path.relative_to(ROOT / "tests").as_posix()
        return LONG_FILES.index(name) if name in LONG_FILES else len(LONG_FILES)

    items.sort(key=position)


@pytest.fixture(autouse=True)
def remove_log_handlers() -> Iterator[None]:
    """Remove the handlers of commands that ran in this process: their streams are those of the test."""
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def eventually():
    """A function that polls a condition until it is true, and fails after 30 s."""

    def wait(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "the condition was not true within 30 s"
            time.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def versioned_model(tmp_path_factory):
    """A `VersionedModel`, whose predictions reveal the version that made them."""
    directory = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-m", "tests.versioned_model", directory], cwd=ROOT, check=True)
    return VersionedModel(directory)
