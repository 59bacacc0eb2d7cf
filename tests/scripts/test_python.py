"""lib/python.sh with a fake Python that logs its calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0

# `-m venv DIR` copies the fake into DIR; `-m pip` exits with PIP_EXIT.
FAKE_PYTHON = """#!/bin/bash
here=$(dirname "$0")
case "$1 ${2:-}" in
  "-c "*import*) [[ ! -e $here/unfit ]] ;;
  "-c ") ;;
  "-m tfserving") echo "tfserving ${*:3} with $PYTHONPATH" ;;
  --version*) echo "Python 3.12.0" ;;
  "-m venv") echo "venv $3" >>"$LOG"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip") echo "pip in $here: ${*: -1}" >>"$LOG"; exit "${PIP_EXIT:-0}" ;;
  *) echo "unexpected: $*" >>"$LOG"; exit 99 ;;
esac
"""

MAKE_VENV = """
SCRIPT=script ROOT=$1
source "$ROOT/lib/common.sh"
source "$ROOT/lib/python.sh"
make_venv
echo "$PYTHON"
"""
TOOLS = ("bash", "cat", "chmod", "cksum", "cp", "dirname", "env", "find", "mkdir", "rm", "touch", "tr")


class Machine:
    """A checkout with a requirements.txt, and a PATH whose only Python is the fake."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.root.mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.log = folder / "log"
        self.venv = self.root / ".venv"
        self.requirements = self.root / "requirements.txt"
        self.requirements.write_text("tensorflow==2.20.0\n")
        fake = self.bin / "python3"
        fake.write_text(FAKE_PYTHON)
        fake.chmod(0o755)
        for name in ("lib", "docker"):
            (self.root / name).symlink_to(ROOT / name)
        for tool in TOOLS:
            path = shutil.which(tool)
            assert path is not None
            (self.bin / tool).symlink_to(path)

    def make(self, **environment: str) -> tuple[int, str, str]:
        """Runs make_venv; returns its exit code, stdout and stderr. `calls` has the calls of Python."""
        self.log.write_text("")
        result = subprocess.run(
            ["/bin/bash", "-Eeuo", "pipefail", "-c", MAKE_VENV, "x", str(self.root)],
            env={"PATH": str(self.bin), "LOG": str(self.log), **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        return result.returncode, result.stdout.strip(), result.stderr

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()

    def created(self, venv: Path) -> bool:
        return self.calls == [f"venv {venv}", f"pip in {venv}/bin: {self.requirements}"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_creates_the_environment_once(machine: Machine) -> None:
    code, python, err = machine.make()
    assert (code, python) == (0, f"{machine.venv}/bin/python")
    assert "creating the virtual environment" in err
    assert machine.created(machine.venv)

    assert machine.make() == (0, f"{machine.venv}/bin/python", "")
    assert machine.calls == []


def test_installs_changed_requirements(machine: Machine) -> None:
    machine.make()
    machine.requirements.write_text("tensorflow==2.21.0\n")
    assert machine.make()[0] == 0
    assert machine.calls == [f"pip in {machine.venv}/bin: {machine.requirements}"]


def test_recreates_an_environment_after_an_interrupted_install(machine: Machine) -> None:
    code, _, err = machine.make(PIP_EXIT="1")
    assert code == 1
    assert err.splitlines()[-1] == "script: error: pip install failed; its output is above"
    (machine.venv / "half").touch()

    assert machine.make()[0] == 0
    assert machine.created(machine.venv)
    assert not (machine.venv / "half").exists()
    assert machine.make() == (0, f"{machine.venv}/bin/python", "")


def test_recreates_an_environment_whose_python_is_missing(machine: Machine) -> None:
    machine.make()
    (machine.venv / "bin" / "python").unlink()
    assert machine.make()[0] == 0
    assert machine.created(machine.venv)


def test_recreates_an_unmarked_environment_in_the_default_place(machine: Machine) -> None:
    (machine.venv / "bin").mkdir(parents=True)
    assert machine.make()[0] == 0
    assert machine.created(machine.venv)


def test_creates_the_environment_that_venv_names(machine: Machine, tmp_path: Path) -> None:
    venv = tmp_path / "with space" / "venv"
    assert machine.make(VENV=str(venv))[1] == f"{venv}/bin/python"
    assert machine.created(venv)
    assert not machine.venv.exists()


def test_installs_into_an_existing_environment_and_keeps_its_files(machine: Machine, tmp_path: Path) -> None:
    venv = tmp_path / "theirs"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(FAKE_PYTHON)
    (venv / "bin" / "python").chmod(0o755)
    (venv / "mine").touch()
    assert machine.make(VENV=str(venv))[0] == 0
    assert machine.calls == [f"pip in {venv}/bin: {machine.requirements}"]
    assert (venv / "mine").exists()


def test_rejects_a_directory_that_is_not_an_environment(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    code, _, err = machine.make(VENV=str(tmp_path / "data"))
    assert code == 2
    assert "exists and is not a virtual environment" in err
    assert os.listdir(tmp_path / "data") == ["mine"]


def test_fails_without_a_supported_python(machine: Machine) -> None:
    (machine.bin / "unfit").touch()
    code, _, err = machine.make()
    assert code == 1
    assert "no Python 3.10 to 3.13 with venv and ensurepip" in err
    assert f"(found {machine.bin}/python3 (Python 3.12.0));" in err
    assert not machine.venv.exists()


def test_finds_a_python_with_a_version_in_its_name(machine: Machine) -> None:
    os.rename(machine.bin / "python3", machine.bin / "python3.11")
    assert machine.make()[0] == 0
    assert machine.created(machine.venv)


def run_command(machine: Machine, venv: Path, **environment: str) -> str:
    """Output of `tfserving check --help` in the environment."""
    return subprocess.run(
        [venv / "bin" / "tfserving", "check", "--help"],
        env={"PATH": str(machine.bin), **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    ).stdout


class TestCommand:
    def test_runs_the_checkout(self, machine: Machine) -> None:
        machine.make()
        assert run_command(machine, machine.venv) == f"tfserving check --help with {machine.root}\n"
        with_path = run_command(machine, machine.venv, PYTHONPATH="/mine")
        assert with_path == f"tfserving check --help with {machine.root}:/mine\n"

    def test_is_added_to_an_environment_that_is_complete(self, machine: Machine) -> None:
        machine.make()
        (machine.venv / "bin" / "tfserving").unlink()
        assert machine.make() == (0, f"{machine.venv}/bin/python", "")
        assert machine.calls == []
        assert str(machine.root) in run_command(machine, machine.venv)

    def test_runs_the_last_of_two_checkouts_that_share_an_environment(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        venv = tmp_path / "shared"
        machine.make(VENV=str(venv))
        first = machine.root
        machine.root = tmp_path / "second"
        first.rename(machine.root)
        assert machine.make(VENV=str(venv))[0] == 0
        assert machine.calls == []
        assert run_command(machine, venv) == f"tfserving check --help with {machine.root}\n"

    def test_keeps_a_command_that_pip_installed(self, machine: Machine) -> None:
        machine.make()
        command = machine.venv / "bin" / "tfserving"
        command.write_text("#!/bin/sh\necho installed\n")
        machine.make()
        assert run_command(machine, machine.venv) == "installed\n"

    def test_writes_nothing_into_the_checkout(self, machine: Machine) -> None:
        before = sorted(machine.root.iterdir())
        machine.make()
        assert sorted(machine.root.iterdir()) == [machine.venv, *before]

    def test_a_command_that_cannot_be_written_is_reported(self, machine: Machine) -> None:
        machine.make()
        command = machine.venv / "bin" / "tfserving"
        command.unlink()
        command.symlink_to("/nowhere/tfserving")
        code, _, err = machine.make()
        assert code == 0
        assert (
            err == f"script: {command} is not writable; use python -m tfserving in {machine.root} instead\n"
        )
