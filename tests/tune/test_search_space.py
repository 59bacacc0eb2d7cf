"""Which settings are tried."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tune.fake_runs import make_space
from tfserving.bench.workload import Workload, WorkloadRequest
from tfserving.server.batching.parameters import read_parameters
from tfserving.tune.search_space import rows_of
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import Signature, TensorInfo


def make_signatures(*shapes):
    infos = {
        f"x{number}": TensorInfo(f"x{number}", DType.DT_FLOAT, shape) for number, shape in enumerate(shapes)
    }
    outputs = {"y": TensorInfo("y", DType.DT_FLOAT, (None, 3))}
    return {"serving_default": Signature("serving_default", "", infos, outputs)}


def make_workload(*arrays):
    inputs = {f"x{number}": array for number, array in enumerate(arrays)}
    return Workload((WorkloadRequest("", b"", "", inputs),), "")


def test_every_batching_file_is_accepted_by_the_server(tmp_path):
    for space in (make_space(), make_space(rows=(3, 5)), make_space(cpus=16, concurrency=100)):
        found = set(space.candidates())
        found |= {near for settings in found for near in space.neighbors(settings)}
        batchings = {settings.batching for settings in found} - {None}
        assert len(batchings) > 20
        for batching in batchings:
            path = tmp_path / "batching.config"
            path.write_text(batching.text)
            parameters = read_parameters(path)
            assert parameters.max_batch_size == batching.max_batch_size
            assert parameters.allowed_batch_sizes == batching.allowed_batch_sizes


def test_batches_hold_the_largest_request_and_reach_the_rows_of_all_callers():
    sizes = {s.batching.max_batch_size for s in make_space(rows=(4, 6)).candidates() if s.batching}
    assert min(sizes) > 6
    assert max(sizes) == 6 * 16


def test_one_caller_gets_no_batching():
    space = make_space(concurrency=1)
    found = [space.default, *space.candidates()]
    assert not any(each.batching for settings in found for each in (settings, *space.neighbors(settings)))


def test_the_first_candidates_are_those_that_helped_most_often():
    first, second, third = make_space().candidates()[:3]
    assert first.label == "intra-op 1"
    assert second.label == "batches of 16, 2000 µs, 2 threads (sizes 1, 2, 4, 8, 16)"
    assert third.label == f"{second.label}; intra-op 1"


def test_a_server_that_rejects_requests_gets_threads_for_all_callers():
    few = make_space(queues_requests=False, concurrency=8)
    assert {settings.grpc_max_threads for settings in few.candidates()} == {0}
    many = make_space(queues_requests=False, concurrency=100)
    assert {settings.grpc_max_threads for settings in many.candidates()} == {200}


def test_xla_is_tried_on_a_gpu_only():
    assert not any(settings.auto_jit for settings in make_space().candidates())
    first = make_space(has_gpu=True).candidates()[:3]
    assert [settings.auto_jit for settings in first] == [False, True, False]


def test_every_value_can_be_reached_in_steps():
    space = make_space()
    reached, new = set(), {space.default}
    while new:
        reached |= new
        new = {near for settings in new for near in space.neighbors(settings)} - reached
    assert reached >= set(space.candidates())


@pytest.mark.parametrize(
    ("shapes", "arrays", "rows"),
    [
        ([(None, 2)], [np.zeros((3, 2))], (3, 3)),
        ([(None, 2), (None,)], [np.zeros((3, 2)), np.zeros(3)], (3, 3)),
        ([(None, 2), (None,)], [np.zeros((3, 2)), np.zeros(2)], None),
        ([(1, 2)], [np.zeros((1, 2))], None),
        ([()], [np.zeros(())], None),
    ],
)
def test_requests_can_be_joined_if_all_first_dimensions_are_free(shapes, arrays, rows):
    assert rows_of(make_workload(*arrays), make_signatures(*shapes)) == rows
