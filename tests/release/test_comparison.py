"""Comparison of versions on a fake server and on disk, without TensorFlow."""

from __future__ import annotations

import json

import pytest

from tfserving.errors import ExportError, InvalidInputError, NotFoundError, RepositoryError
from tfserving.release.comparison import DiskVersion, Latency, ServedVersion, compare_versions
from tfserving.release.comparison_plot import plot_comparison
from tfserving.release.differences import Tolerance

DATA = {"x": [1.0, 2.0, 3.0]}


@pytest.fixture
def server(rpc_server):
    """`server(1)` is version 1 on the fake server; `server("stable")` the version with that label."""

    def make(choice=None):
        chosen = {"version": choice} if isinstance(choice, int) else {"label": choice}
        return ServedVersion(rpc_server.address, **chosen)

    return make


def test_compares_two_versions_of_a_server(server):
    comparison = compare_versions("half", server(1), server(2), data=DATA, rounds=2)
    assert (comparison.signature, comparison.samples) == ("serving_default", 3)
    (output,) = comparison.outputs
    assert (output.values, output.outside, output.largest, output.mean) == (3, 3, 1.0, 1.0)
    assert not comparison.is_match
    assert comparison.errors == ["output 'y' has 3 of 3 values outside the tolerance (largest difference 1)"]
    assert [latency.requests for latency in comparison.latencies] == [6, 6]
    assert compare_versions("half", server(1), server(2), data=DATA, tolerance=Tolerance(0, 1.5)).is_match


def test_compares_labels_and_the_newest_version(server):
    assert compare_versions("half", server("stable"), server(1), samples=2, rounds=0).is_match
    comparison = compare_versions("half", server(), server(2), samples=2, rounds=0)
    assert comparison.is_match
    assert comparison.latencies == (None, None)


def test_rounds_alternate_between_the_versions(service, server):
    order = []
    for number in (1, 2):

        def run(inputs, number=number):
            order.append(number)
            return {"y": inputs["x"]}

        service.models["half"][number].functions["serving_default"] = run
    compare_versions("half", server(1), server(2), data={"x": [1.0, 2.0]}, rounds=1)
    assert order == [1, 1, 2, 2] * 2


def test_reports_samples_that_fail_and_compares_the_others(service, server):
    def fail(inputs):
        if inputs["x"][0] > 1.5:
            raise ExportError("too large")
        return {"y": inputs["x"]}

    service.models["half"][2].functions["serving_default"] = fail
    comparison = compare_versions("half", server(1), server(2), data={"x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]})
    failures = comparison.runs[1].failures
    assert len(failures) == 4
    assert "sample 2: " in failures[0]
    assert "too large" in failures[0]
    assert failures[-1].endswith("2 more samples fail")
    assert comparison.outputs[0].values == 1
    assert not comparison.is_match


def test_reports_a_version_that_is_not_served(server):
    comparison = compare_versions("half", server(1), server(9), data=DATA)
    (error,) = comparison.errors
    assert error.startswith(f"{server(9)}: ")
    assert comparison.outputs == ()
    with pytest.raises(NotFoundError):
        compare_versions("half", server(9), server(1), data=DATA)


def test_compares_a_version_on_disk_with_a_served_one(server, run_with, version_dir):
    run_with(lambda inputs: {"y": inputs["x"] / 2 + 1}, seconds=[0.5, 0.25, 1.0])
    comparison = compare_versions("half", DiskVersion(version_dir), server(1), data=DATA)
    assert comparison.is_match
    assert comparison.latencies[0] == Latency(3, 0.5, 1.0)


def test_reports_a_version_on_disk_that_crashes(server, run_with, version_dir):
    def crash(inputs):
        raise ExportError("the process that ran the model was killed by SIGSEGV: no output")

    run_with(crash)
    comparison = compare_versions("half", server(1), DiskVersion(version_dir), data=DATA)
    assert comparison.errors == [
        f"{version_dir}: the process that ran the model was killed by SIGSEGV: no output"
    ]
    assert comparison.latencies[1] is None


def test_rejects_what_cannot_be_compared(server, tmp_path):
    with pytest.raises(RepositoryError, match="does not exist"):
        compare_versions("half", server(1), DiskVersion(tmp_path / "none"), data=DATA)
    with pytest.raises(InvalidInputError, match="no signature has the inputs"):
        compare_versions("half", server(1), server(2), data={"z": [1.0]})
    with pytest.raises(InvalidInputError, match="-1 rounds are too few"):
        compare_versions("half", server(1), server(2), rounds=-1)


def test_as_json_is_json_without_the_outputs(server):
    comparison = compare_versions("half", server(1), server(2), data=DATA)
    document = json.loads(json.dumps(comparison.as_json(), allow_nan=False))
    assert document["match"] is False
    assert document["first"]["version"] == str(server(1))
    assert document["outputs"][0]["largest"] == 1.0
    assert document["first"]["latency"]["requests"] == 9


def test_plots_values_and_latencies(server, tmp_path):
    pytest.importorskip("matplotlib")
    plot_comparison(compare_versions("half", server(1), server(2), data=DATA), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidInputError, match="cannot write"):
        plot_comparison(
            compare_versions("half", server(1), server(1), data=DATA), tmp_path / "none" / "chart.png"
        )


def test_latency_has_the_median_and_the_99th_percentile():
    assert Latency.of([]) is None
    assert Latency.of([number / 100 for number in range(1, 101)]) == Latency(100, 0.505, 1.0)
