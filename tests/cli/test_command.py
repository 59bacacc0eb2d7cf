"""What all subcommands share: exit statuses, messages, signals and pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tfserving.cli.command import new_parser, run_command
from tfserving.errors import InvalidInputError, NotFoundError, RepositoryError

ROOT = Path(__file__).parents[2]


def run_with(body, **options):
    return lambda argv: run_command(new_parser("prog", "Does it."), argv, body, **options)


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (2, 2)])
def test_returns_the_status_of_the_command(returned, status, run):
    assert run(run_with(lambda _: returned)) == (status, "", "")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInputError("it is wrong"), 2),
        (RepositoryError("it is wrong"), 2),
        (InvalidInputError("it is wrong", server_message="wrong"), 1),
        (NotFoundError("it is wrong"), 1),
    ],
)
def test_exits_with_2_only_if_the_user_has_to_change_something(error, status, run):
    def fail(_):
        raise error

    assert run(run_with(fail)) == (status, "", "prog: error: it is wrong\n")


@pytest.mark.parametrize(
    ("extra", "package"), [("", "tfserving-toolkit"), ("export", "'tfserving-toolkit[export]'")]
)
def test_reports_how_to_install_a_missing_module(extra, package, run):
    def fail(_):
        import no_such_module  # noqa: F401

    assert run(run_with(fail, extra=extra)) == (
        1,
        "",
        f"prog: error: No module named 'no_such_module'; run: pip install {package}\n",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("as_import_error", [False, True])
def test_exits_with_128_plus_the_signal(number, as_import_error, run):
    before = signal.getsignal(number)

    def interrupted(_):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            if as_import_error:
                raise ImportError from error
            raise

    assert run(run_with(interrupted)) == (128 + number, "", "prog: interrupted\n")
    assert signal.getsignal(number) is before


def test_exits_with_1_if_the_reader_closes_the_pipe(models_dir, make_version):
    make_version("a", 1)
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", "tfserving", "versions", "a", "--models-dir", models_dir],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (1, "")
