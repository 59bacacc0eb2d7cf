"""Zero failed requests while versions are swapped under load."""

from __future__ import annotations

import pytest

from tests.embedded import embedded
from tests.soak.expectations import Expectations, Served
from tests.soak.load_generators import GrpcLoadGenerator, RestLoadGenerator
from tests.soak.operators import Swapper
from tests.soak.results import Results
from tests.soak.workers import running

LOAD_GENERATORS = 8
SWAPS = 5


@pytest.mark.tensorflow
@pytest.mark.parametrize("batching", ["true", "false"])
def test_no_request_fails_while_versions_are_swapped(versioned_model, tmp_path, batching):
    base_path = tmp_path / "model"
    versioned_model.publish(base_path, 1)
    expectations = {"model": Expectations(Served(frozenset({1})))}
    results = Results()
    flags = ["--model_name=model", f"--model_base_path={base_path}", f"--enable_batching={batching}"]
    with embedded(tmp_path / "log", *flags) as server:
        apis = (("gRPC", GrpcLoadGenerator, server.grpc), ("REST", RestLoadGenerator, server.rest))
        generators = [
            generator(f"{api} {number}", results, number, address, expectations, newest_only=True)
            for number in range(LOAD_GENERATORS)
            for api, generator, address in apis
        ]
        swapper = Swapper(
            "swapper", results, 0, server.grpc, versioned_model, base_path, expectations["model"], swaps=SWAPS
        )
        with running([*generators, swapper]):
            assert swapper.done.wait(120)
    assert results.failures == []
    last = max(expectations["model"].latest.versions)
    for generator in generators:
        assert {1, last} <= generator.seen_versions, f"{generator.name} saw {generator.seen_versions} only"
