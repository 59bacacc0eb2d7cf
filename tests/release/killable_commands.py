"""Runs commands in forks of a process that has imported everything, and kills them after a time.

python -m tests.release.killable_commands

Reads lines [ARGUMENTS, SECONDS or null, OUTPUT, FILE or null, CALL or null], and prints [STATUS, SECONDS] for
each. SECONDS begin when FILE exists or, without it, when the command starts. CALL is [FUNCTION, N]: the
command is killed when it calls FUNCTION, such as "shutil:rmtree", for the Nth time.
"""

from __future__ import annotations

import itertools
import json
import os
import pkgutil
import signal
import sys
import time
from typing import Any

from tfserving.cli import add, canary, dispatch, label, promote, prune, publish, remove, rollback, warmup  # noqa: F401 - imported once for all
from tfserving.export import replay, verified_warmup


def run_version(*_: Any, **__: Any) -> replay.VersionRun:
    """Stands for the process that would load TensorFlow and run a version."""
    time.sleep(0.01)
    return replay.VersionRun(1, [], [], [])


def kill_in_call(function: str, number: int) -> None:
    """Let this process be killed when it calls a function for the `number`th time."""
    module, _, path = function.partition(":")
    owner_path, _, name = path.rpartition(".")
    owner = pkgutil.resolve_name(f"{module}:{owner_path}")
    original = getattr(owner, name)
    calls = itertools.count(1)

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, call)


def run_in_fork(
    arguments: list[str],
    seconds: float | None,
    output: str,
    file: str | None,
    call: tuple[str, int] | None,
) -> tuple[int, float]:
    """The exit status, negative for a signal, and the time that the command took."""
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        status = 1
        try:
            if call is not None:
                kill_in_call(*call)
            status = dispatch.main(arguments)
        finally:
            sys.stdout.flush()
            os._exit(status)
    if seconds is not None:
        while file is not None and not os.path.exists(file):
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.0002)
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - started


if __name__ == "__main__":
    replay.run_version = verified_warmup.run_version = run_version
    for line in sys.stdin:
        print(json.dumps(run_in_fork(*json.loads(line))), flush=True)
