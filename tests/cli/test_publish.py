"""tfserving publish, verify, warmup and compare on one small model that runs in new processes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.client.fakes import FakeRpcServer, FakeService
from tfserving.cli import compare, publish, verify, warmup
from tfserving.repository.warmup_records import read_warmup


@pytest.fixture
def repository(versioned_model, tmp_path, monkeypatch):
    """A directory with versions 2 and 3 of model m, y = x * version; the current one during the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINE", "embedded")
    for name in ("MODELS_DIR", "MODELS_CONFIG", "RUN_DIR", "START_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    for version in (2, 3):
        versioned_model.publish(tmp_path / "models" / "m", version)
    np.savez("right.npz", x=[1.0, 2.0, 3.0], y=[2.0, 4.0, 6.0])
    np.savez("wrong.npz", x=[1.0, 2.0, 3.0], y=[2.0, 4.0, 6.5])
    return tmp_path


def tree(path):
    return sorted(str(one.relative_to(path)) for one in path.rglob("*"))


@pytest.mark.tensorflow
class TestInANewProcess:
    def test_publishes_a_version_whose_outputs_are_as_expected(self, repository, run):
        before = tree(repository / "models")
        source = ("models/m/2", "--name", "m", "--expect")
        status, out, err = run(publish.main, *source, "wrong.npz")
        assert (status, out) == (1, "")
        assert err.splitlines()[-1] == (
            "tfserving publish: error: the version is not published: output 'y' has 1 of 3 values outside "
            "the tolerance (largest difference 0.5)"
        )
        assert tree(repository / "models") == before

        status, out, err = run(publish.main, *source, "right.npz")
        assert status == 0, err
        assert out.splitlines()[-1] == (
            "published models/m/4: 1 generated request replayed, 3 samples as expected"
        )
        assert tree(repository / "models" / "m" / "4") == tree(repository / "models" / "m" / "2")

    def test_verifies_a_version_as_json(self, repository, run):
        status, out, _ = run(verify.main, "m", "--expect", "right.npz", "--json")
        assert status == 1
        document = json.loads(out)
        assert (document["model"], document["version"], document["verified"]) == ("m", 3, False)
        (output,) = document["outputs"]
        assert (output["name"], output["largest"], output["outside"]) == ("y", 3.0, 3)

    def test_compares_two_versions_on_disk(self, repository, run):
        status, out, err = run(compare.main, "m", "2", "3", "--data", "right.npz", "--atol", "3")
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "m: models/m/2 and models/m/3, signature serving_default, 3 samples"
        assert lines[3].split() == ["y", "3", "3", "2", "0", "-", "ok"]
        assert [line.split()[:2] for line in lines[6:8]] == [["models/m/2", "9"], ["models/m/3", "9"]]
        assert lines[-1] == "the versions match"

    def test_writes_warmup_records_that_have_been_replayed(self, repository, run):
        path = repository / "models" / "m" / "3"
        status, out, err = run(warmup.main, "m", "--batch-sizes", "1,8,32")
        assert (status, out) == (0, "wrote 3 warmup records to models/m/3\n"), err
        assert [batch_size(log) for log in read_warmup(path)] == [1, 8, 32]

        (repository / "batching.config").write_text(
            "max_batch_size { value: 4 } allowed_batch_sizes: 2 allowed_batch_sizes: 4"
        )
        arguments = ("m/3", "--batching-parameters-file", "batching.config", "--data", "right.npz", "--json")
        status, out, err = run(warmup.main, *arguments)
        assert status == 0, err
        assert json.loads(out) == {"model": "m", "version": 3, "records": 2}
        assert [batch_size(log) for log in read_warmup(path)] == [2, 4]
        assert tree(path) == ["assets.extra", "assets.extra/tf_serving_warmup_requests", "saved_model.pb"]
        assert tree(repository / "models" / "m" / "2") == ["saved_model.pb"]


def batch_size(log):
    return log.predict_log.request.inputs["x"].tensor_shape.dim[0].size


def test_refuses_to_warm_up_a_version_that_a_server_has_loaded(repository, run):
    service = FakeService()
    service.models["m"] = service.models["half"]
    with FakeRpcServer(service) as server:
        status, out, err = run(warmup.main, "m/2", "--server", server.address)
    assert (status, out) == (2, "")
    assert "has loaded version 2 of m" in err
    assert tree(repository / "models" / "m" / "2") == ["saved_model.pb"]


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (verify.main, ("m/9",), "models/m has no version 9 on disk (found 2, 3); export one: "),
        (verify.main, ("n",), "cannot list models/n"),
        (verify.main, ("m/two",), '"m/two" is not a version of a model; write NAME or NAME/VERSION'),
        (verify.main, ("m", "--rtol", "-1"), "the relative tolerance is -1; expected 0 or more"),
        (verify.main, ("m", "--expect", "none.npz"), "cannot read none.npz"),
        (publish.main, ("models/m/2", "--name", "m", "--expect", "none.npz"), "cannot read none.npz"),
        (publish.main, ("none", "--name", "m"), "none does not exist"),
        (warmup.main, ("m", "--batch-sizes", "1,x"), "'1,x' is not a list of batch sizes, such as 1,8,32"),
        (warmup.main, ("m", "--shape", "x"), "'x' is not of the form INPUT=SIZExSIZE"),
        (warmup.main, ("m", "--shape", "x=1", "--data", "right.npz"), "--shape and --data are mutually"),
        (warmup.main, ("m", "--shape", "x=1", "--shape", "x=2"), "input 'x' has two shapes"),
        (warmup.main, ("m", "--shape", "x=3"), "shape 3 does not fit input 'x'"),
        (warmup.main, ("m", "--batching-parameters-file", "b"), "b has no allowed_batch_sizes"),
        (compare.main, ("m", "2", "9"), "models/m has no version 9 on disk (found 2, 3)"),
        (compare.main, ("m", "2", "stable"), "'stable' is not a version; write a number, HOST:PORT or"),
        (compare.main, ("m", "2", "host:1/"), "'host:1/' is not a version"),
        (compare.main, ("m", "2", "3", "--samples", "0"), "0 samples are too few"),
    ],
)
def test_exits_with_2_on_invalid_arguments(main, arguments, message, repository, run):
    (repository / "b").write_text("max_batch_size { value: 4 }")
    before = tree(repository)
    status, out, err = run(main, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert tree(repository) == before


def test_compares_versions_of_a_server_and_writes_a_chart(repository, run):
    pytest.importorskip("matplotlib")
    with FakeRpcServer(FakeService()) as server:
        arguments = ("half", "1", f"{server.address}/stable", "--server", server.address, "--samples", "2")
        status, out, err = run(compare.main, *arguments, "--png", "chart.png", "--json")
        assert (status, err) == (0, "")
        assert json.loads(out)["second"]["version"] == f"{server.address}/stable"
        assert (repository / "chart.png").is_file()
        status, out, err = run(compare.main, "half", f"{server.address}/1", server.address, "--samples", "2")
    assert status == 1
    assert err == ("half: error: output 'y' has 2 of 2 values outside the tolerance (largest difference 1)\n")
