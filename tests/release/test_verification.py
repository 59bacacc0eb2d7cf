"""Verification of versions. The process is a fake; tests/cli/test_publish.py has a real one."""

from __future__ import annotations

import numpy as np
import pytest

from tfserving.errors import ExportError, InvalidInputError
from tfserving.export.replay import Failure
from tfserving.release.differences import Tolerance
from tfserving.release.verification import verify_version
from tfserving.repository.warmup_records import write_warmup


def double(inputs):
    return {"y": inputs["x"] * 2}


def test_reports_what_was_done(version_dir, run_with):
    run_with(double)
    result = verify_version(version_dir, expect={"x": [1.0, 2.0], "y": [2.0, 4.0]})
    assert result.errors == ()
    assert result.describe() == "1 generated request replayed, 2 samples as expected"
    assert [one.name for one in result.differences] == ["y"]
    write_warmup(version_dir, [])
    assert verify_version(version_dir).describe() == "1 warmup record replayed"


def test_reports_outputs_that_differ(version_dir, run_with):
    run_with(double)
    expect = {"x": [1.0, 2.0], "y": [2.0, 4.1]}
    (error,) = verify_version(version_dir, expect=expect).errors
    assert error == "output 'y' has 1 of 2 values outside the tolerance (largest difference 0.1)"
    assert verify_version(version_dir, expect=expect, tolerance=Tolerance(absolute=0.2)).errors == ()
    assert not verify_version(version_dir, expect=expect).as_json()["verified"]


def test_reports_requests_that_fail(version_dir, run_with):
    run_with(lambda inputs: "too hot", failures=[Failure(1, "serving_default", "zeros are bad")])
    errors = verify_version(version_dir, expect={"x": [1.0], "y": [2.0]}).errors
    assert errors == (
        "generated request 1 (signature 'serving_default') fails: zeros are bad; "
        "add warmup records with valid samples (--warmup-data)",
        "1 of 1 samples fail, the first is number 1: too hot",
    )


def test_reports_a_process_that_crashes_and_an_incomplete_version(version_dir, run_with):
    def crash(inputs):
        raise ExportError("the process was killed by SIGSEGV")

    run_with(crash)
    expect = {"x": [1.0], "y": [2.0]}
    assert verify_version(version_dir, expect=expect).errors == ("the process was killed by SIGSEGV",)
    (version_dir / "saved_model.pb").unlink()
    (error,) = verify_version(version_dir, expect=expect).errors
    assert error.endswith("m/2 has no saved_model.pb; copy or export the model again")


def test_rejects_expectations_that_do_not_fit(version_dir, run_with):
    run_with(double)
    with pytest.raises(InvalidInputError, match=r"has only inputs \(x\)"):
        verify_version(version_dir, expect={"x": [1.0]})
    with pytest.raises(InvalidInputError, match="no signature has the inputs"):
        verify_version(version_dir, expect={"a": [1.0], "y": [2.0]})
    with pytest.raises(InvalidInputError, match=r"cannot read no\.npz"):
        verify_version(version_dir, expect="no.npz")


def test_an_output_of_another_shape_cannot_be_compared(version_dir, run_with):
    run_with(lambda inputs: {"y": np.ones((1, 2), np.float32)})
    (error,) = verify_version(version_dir, expect={"x": [1.0], "y": [2.0]}).errors
    assert error == "output 'y' has shape (1, 2) and () in sample 1"
