"""Stops what a benchmark has started, its servers first of all, when the benchmark is interrupted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tfserving.cli.command import signals_as_interrupts


def run_interruptible(main: Callable[[], int]) -> int:
    """Run a command; SIGINT and SIGTERM raise KeyboardInterrupt in it, so that it leaves its contexts.

    Returns:
        The exit status: that of the command, or 128 plus the number of the signal.
    """
    with signals_as_interrupts() as signals:
        try:
            return main()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 128 + signals[0]


def run_process(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a process that starts servers, like `subprocess.run`.

    When interrupted, it sends SIGTERM and waits; `subprocess.run` would kill the process, and its servers
    would stay. The process has its own session, so that Ctrl-C does not interrupt it a second time.
    """
    with subprocess.Popen(command, text=True, start_new_session=True, **options) as process:
        try:
            output, errors = process.communicate()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
