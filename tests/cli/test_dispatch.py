"""The `tfserving` command: dispatch to the subcommands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfserving import __version__
from tfserving.cli.dispatch import main

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("call", "bench", "tune", "export", "publish", "verify", "warmup", "compare", "serve"),
    *("check", "format", "select", "versions", "show", "diff", "status", "watch", "history", "prune"),
    *("promote", "rollback", "canary", "label", "add", "remove"),
    *("clients", "traffic"),
)


def python(*argv: str, **options) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *argv], env=environment, text=True, check=False, **options)


def test_help_lists_every_command_and_the_exit_statuses(run):
    status, out, _ = run(main, "--help")
    assert status == 0
    for name in COMMANDS:
        assert f"\n  {name} " in out
    assert "exit status: 0 done, 1 failed, 2 " in out


def test_prints_its_version(run):
    assert run(main, "--version") == (0, f"tfserving {__version__}\n", "")


@pytest.mark.parametrize(
    "argv", [(), ("cal",), ("check",), ("select", "--config", "x"), ("versions", "a", "b")]
)
def test_exits_with_2_on_misuse(argv, run):
    status, out, err = run(main, *argv)
    assert (status, out) == (2, "")
    assert "usage: tfserving" in err


def test_reports_an_unknown_command_with_the_choices(run):
    err = run(main, "cal")[2]
    assert all(name in err.splitlines()[-1] for name in ("'cal'", *COMMANDS))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_every_command_has_help_with_its_name(name, run):
    status, out, _ = run(main, name, "--help")
    assert status == 0
    assert out.startswith(f"usage: tfserving {name} ")
    assert "exit status: 0 done" in out


@pytest.mark.tensorflow
def test_serve_takes_the_flags_of_the_server():
    done = python("-m", "tfserving", "serve", "--help", capture_output=True)
    assert done.returncode == 0
    assert "--model_config_file" in done.stdout


def test_python_m_tfserving_is_the_same_command():
    done = python("-m", "tfserving", "versions", "--help", capture_output=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: tfserving versions")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_imports_neither_tensorflow_nor_optional_packages_before_a_command_runs(name):
    code = (
        "import contextlib, sys\n"
        "from tfserving.cli.dispatch import main\n"
        f"with contextlib.suppress(SystemExit): main(['{name}', '--help'])\n"
        "optional = {'tensorflow', 'keras', 'aiohttp', 'httptools', 'uvloop', 'google_crc32c', 'orjson'}\n"
        "optional.add('rich')\n"
        "sys.exit(str(optional & set(sys.modules)) if optional & set(sys.modules) else 0)"
    )
    done = python("-c", code, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["check", "format_config", "select", "list_versions"])
def test_commands_for_scripts_import_no_numpy(module):
    code = f"import sys, tfserving.cli.{module}\nprint({{'tensorflow', 'numpy', 'grpc'}} & set(sys.modules))"
    assert python("-c", code, capture_output=True).stdout == "set()\n"
