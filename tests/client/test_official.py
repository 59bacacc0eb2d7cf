"""Beside TensorFlow: in one process, and the same bytes in meaning. See official.py."""

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
def test_the_client_lives_beside_tensorflow(order, rpc_server):
    run(order, rpc_server.address)


def test_every_dtype_means_the_same_both_ways():
    run("codec")


def test_every_field_is_the_official_one():
    run("descriptors")
