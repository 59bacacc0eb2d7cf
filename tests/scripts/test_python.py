"""lib/venv.sh with a fake Python that notes what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0

# `-m venv DIR` copies the fake into DIR, as a real one links itself; `-m pip` does as the file `pip` says.
FAKE_PYTHON = """#!/bin/bash
here=$(dirname "$0")
case "$1 ${2:-}" in
  "-c "*import*) [[ ! -e $here/unfit ]] ;;
  "-c ") ;;
  --version*) echo "Python 3.12.0" ;;
  "-m venv") echo "venv $3" >>"$LOG"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip") echo "pip in $here: ${*: -1}" >>"$LOG"; exit "${PIP_EXIT:-0}" ;;
  *) echo "unexpected: $*" >>"$LOG"; exit 99 ;;
esac
"""

SCRIPT = """
DOOR=door ROOT=$1
source "$ROOT/lib/common.sh"
source "$ROOT/lib/venv.sh"
make_venv
echo "$PYTHON"
"""
TOOLS = ("bash", "cat", "cksum", "cp", "dirname", "find", "mkdir", "rm", "touch", "tr")


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
        (self.root / "lib").symlink_to(ROOT / "lib")
        for tool in TOOLS:
            path = shutil.which(tool)
            assert path is not None
            (self.bin / tool).symlink_to(path)

    def make(self, **environment: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of make_venv; what the fake was asked for is in `asked`."""
        self.log.write_text("")
        done = subprocess.run(
            ["/bin/bash", "-Eeuo", "pipefail", "-c", SCRIPT, "x", str(self.root)],
            env={"PATH": str(self.bin), "LOG": str(self.log), **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        return done.returncode, done.stdout.strip(), done.stderr

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()

    def asked_to_make(self, venv: Path) -> bool:
        return self.asked == [f"venv {venv}", f"pip in {venv}/bin: {self.requirements}"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_makes_it_then_leaves_it(machine: Machine) -> None:
    code, python, said = machine.make()
    assert (code, python) == (0, f"{machine.venv}/bin/python")
    assert "making the virtual environment" in said
    assert machine.asked_to_make(machine.venv)

    assert machine.make() == (0, f"{machine.venv}/bin/python", "")
    assert machine.asked == []


def test_other_requirements_are_installed_into_it(machine: Machine) -> None:
    machine.make()
    machine.requirements.write_text("tensorflow==2.21.0\n")
    assert machine.make()[0] == 0
    assert machine.asked == [f"pip in {machine.venv}/bin: {machine.requirements}"]


def test_one_that_was_broken_off_is_made_afresh(machine: Machine) -> None:
    code, _, said = machine.make(PIP_EXIT="1")
    assert code == 1
    assert (
        said.splitlines()[-1] == "door: error: pip could not install requirements.txt; its message is above"
    )
    (machine.venv / "half").touch()

    assert machine.make()[0] == 0
    assert machine.asked_to_make(machine.venv)
    assert not (machine.venv / "half").exists()
    assert machine.make() == (0, f"{machine.venv}/bin/python", "")


def test_one_whose_python_is_gone_is_made_afresh(machine: Machine) -> None:
    machine.make()
    (machine.venv / "bin" / "python").unlink()
    assert machine.make()[0] == 0
    assert machine.asked_to_make(machine.venv)


def test_one_in_the_usual_place_that_nobody_finished(machine: Machine) -> None:
    (machine.venv / "bin").mkdir(parents=True)
    assert machine.make()[0] == 0
    assert machine.asked_to_make(machine.venv)


def test_venv_names_another_place(machine: Machine, tmp_path: Path) -> None:
    venv = tmp_path / "with space" / "venv"
    assert machine.make(VENV=str(venv))[1] == f"{venv}/bin/python"
    assert machine.asked_to_make(venv)
    assert not machine.venv.exists()


def test_somebody_elses_is_added_to(machine: Machine, tmp_path: Path) -> None:
    venv = tmp_path / "theirs"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(FAKE_PYTHON)
    (venv / "bin" / "python").chmod(0o755)
    (venv / "mine").touch()
    assert machine.make(VENV=str(venv))[0] == 0
    assert machine.asked == [f"pip in {venv}/bin: {machine.requirements}"]
    assert (venv / "mine").exists()


def test_what_is_no_environment_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    code, _, said = machine.make(VENV=str(tmp_path / "data"))
    assert code == 2
    assert "exists and is no virtual environment" in said
    assert os.listdir(tmp_path / "data") == ["mine"]


def test_no_python_that_fits(machine: Machine) -> None:
    (machine.bin / "unfit").touch()
    code, _, said = machine.make()
    assert code == 1
    assert "needs Python 3.10 to 3.13 with venv and ensurepip" in said
    assert f"found {machine.bin}/python3 (Python 3.12.0);" in said
    assert not machine.venv.exists()


def test_takes_the_next_python(machine: Machine) -> None:
    os.rename(machine.bin / "python3", machine.bin / "python3.11")
    assert machine.make()[0] == 0
    assert machine.asked_to_make(machine.venv)
