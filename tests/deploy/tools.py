"""Finds the real tools that check the files of deploy/."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def skip(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI, where every tool is installed."""
    if os.environ.get("TFSERVING_REQUIRE_DOCKER") == "1":
        pytest.fail(f"{reason}, and TFSERVING_REQUIRE_DOCKER=1")
    pytest.skip(reason, allow_module_level=True)


def import_tool(name: str, package: str) -> Any:
    """A module of a package that the tests of deploy/ need, and that is not in requirements.txt."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return skip(f"no module {name} (PyPI: {package})")


def find_tool(name: str, package: str) -> str:
    """The path of a command, from the virtual environment of the tests or else from PATH.

    Args:
        package: where the command comes from, for the reason of the skip.
    """
    scripts = sysconfig.get_path("scripts")
    path = shutil.which(name, path=scripts) or shutil.which(name)
    return path or skip(f"no command {name} ({package})")


def run_tool(*command: str | Path, **options: str | Path) -> str:
    """Run a command and return its output and its messages. Raises AssertionError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit code {done.returncode}\n{output}"
    return output


def list_deploy_files(*under: str) -> list[Path]:
    """The files of a folder of deploy/ that git tracks or would track, as paths relative to deploy/."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "/".join(under) or "."]
    names = subprocess.run(command, cwd=DEPLOY, check=True, capture_output=True, text=True).stdout
    return sorted(Path(name) for name in names.split("\0") if name and (DEPLOY / name).exists())
