"""An interrupted benchmark stops its servers."""

import os
import signal
import subprocess
import sys

import pytest

from tests.embedded import ROOT

BENCHMARK = """
import sys, time
from benchmarks.interrupts import run_interruptible
from benchmarks.server import servers

def main():
    with servers.empty_handler() as server:
        print(server.process.pid, flush=True)
        time.sleep(100)

sys.exit(run_interruptible(main))
"""
# Runs the benchmark above, as benchmarks.compare runs others.
OUTER = """
import sys
from benchmarks.interrupts import run_interruptible, run_process

sys.exit(run_interruptible(lambda: run_process([sys.executable, "-c", sys.argv[1]]).returncode))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments", [(BENCHMARK,), (OUTER, BENCHMARK)], ids=["one", "nested"])
def test_an_interrupted_benchmark_stops_its_servers(number, arguments, eventually):
    command = [sys.executable, "-c", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        server = int(process.stdout.readline())
        process.send_signal(number)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + number
    assert errors.decode().splitlines()[-1] == "interrupted"
    eventually(lambda: not is_running(server))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
