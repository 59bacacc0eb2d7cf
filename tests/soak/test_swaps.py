"""Versions are swapped while 8 callers on each API call: none of them may notice."""

from __future__ import annotations

import pytest

from tests.embedded import embedded
from tests.soak.actors import at_work
from tests.soak.callers import GrpcCaller, RestCaller
from tests.soak.operators import Swapper
from tests.soak.record import Record
from tests.soak.wishes import Wish, Wishes

CALLERS = 8
SWAPS = 5


@pytest.mark.tensorflow
@pytest.mark.parametrize("batching", ["true", "false"])
def test_no_request_fails_while_versions_are_swapped(times, tmp_path, batching):
    base_path = tmp_path / "model"
    times.publish(base_path, 1)
    models = {"model": Wishes(Wish(frozenset({1})))}
    record = Record()
    flags = ["--model_name=model", f"--model_base_path={base_path}", f"--enable_batching={batching}"]
    with embedded(tmp_path / "log", *flags) as server:
        callers = [
            kind(f"{api} {number}", record, number, address, models, newest_only=True)
            for number in range(CALLERS)
            for api, kind, address in (("gRPC", GrpcCaller, server.grpc), ("REST", RestCaller, server.rest))
        ]
        swapper = Swapper("swapper", record, 0, server.grpc, times, base_path, models["model"], rounds=SWAPS)
        with at_work([*callers, swapper]):
            assert swapper.done.wait(120)
    assert record.faults == []
    last = max(models["model"].now.versions)
    for caller in callers:
        assert {1, last} <= caller.seen, f"{caller.name} had answers of {caller.seen} only"
