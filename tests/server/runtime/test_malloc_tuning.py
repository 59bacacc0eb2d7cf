"""Arenas are counted by glibc itself, in another process: they cannot be removed."""

import os
import platform
import subprocess
import sys

import pytest

from tests.embedded import ROOT

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")

THREADS = 40
COUNT_ARENAS = f"""
import ctypes, threading
from tfserving.server.runtime.malloc_tuning import limit_arenas

limit_arenas()
barrier = threading.Barrier({THREADS})

def allocate():
    block = bytes(100_000)
    barrier.wait()

threads = [threading.Thread(target=allocate) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


def count_arenas(**environment):
    command = [sys.executable, "-c", COUNT_ARENAS]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True, text=True
    )
    return sum(line.startswith("Arena ") for line in done.stderr.splitlines())


def test_threads_share_as_many_arenas_as_cpus():
    assert count_arenas() <= max(2, os.cpu_count())


def test_the_variable_of_glibc_takes_precedence():
    assert count_arenas(MALLOC_ARENA_MAX=str(THREADS)) > max(2, os.cpu_count())
