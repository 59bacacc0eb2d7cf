"""In a closed loop, `tfserving bench` agrees with h2load on throughput and p99.

This is the quick form of `python -m benchmarks.load_generators`, which measures for longer, with other models
and loads.
"""

from __future__ import annotations

import shutil

import pytest

from benchmarks.load_generators import Ratios, compare_with_h2load
from benchmarks.server import servers

LIMIT = 0.25
# Comparisons whose medians have to agree, and the most comparisons until then: other tests use the machine at
# the same time, which slows a load generator in Python more than h2load.
TOGETHER, MOST = 3, 15


@pytest.fixture(scope="module")
def server(versioned_model, tmp_path_factory):
    """An embedded server with a model that takes microseconds."""
    if shutil.which("h2load") is None:
        pytest.skip("needs h2load (Debian: nghttp2-client)")
    base_path = tmp_path_factory.mktemp("models") / "trivial"
    versioned_model.publish(base_path, 1)
    with servers.embedded("--model_name=trivial", f"--model_base_path={base_path}") as server:
        yield server


@pytest.mark.tensorflow
@pytest.mark.parametrize("make", [servers.grpc_request, servers.rest_request])
def test_agrees_with_h2load(server, make, tmp_path):
    request = make(server, "trivial", tmp_path)
    found = []
    while len(found) < MOST:
        found.append(compare_with_h2load(request, 2, 1.5))
        if len(found) >= TOGETHER and Ratios.of(found[-TOGETHER:]).agree(LIMIT):
            return
    pytest.fail(f"the ratios to h2load differ by more than {LIMIT:.0%}: {found}")
