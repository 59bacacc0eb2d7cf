"""The client together with TensorFlow in one process, and the meaning of messages. See official.py."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parents[2]


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.official", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("order", ["before", "after"])
def test_client_and_tensorflow_work_in_one_process(order, rpc_server):
    run(order, rpc_server.address)


def test_tensorflow_reads_and_writes_the_same_arrays():
    run("codec")


def test_fields_equal_those_of_tensorflow():
    run("descriptors")
