"""Runs of a version in a new process."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tfserving.errors import DeadlineError, ExportError
from tfserving.export.replay import run_version
from tfserving.repository.warmup_records import write_warmup
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import encode_request


def request(signature="", **inputs):
    arrays = {name: np.asarray(values, np.float32) for name, values in inputs.items()}
    return encode_request(ModelSpec("m", signature=signature), arrays)


@pytest.mark.tensorflow
def test_replays_records_and_returns_outputs_and_times(versioned_model, tmp_path):
    version = versioned_model.publish(tmp_path / "m", 3)
    write_warmup(tmp_path, [request(x=[1.0]), request(z=[1.0])])
    run = run_version(
        version, records_dir=tmp_path, requests=[request(x=[1.0, 2.0]), request(z=[1.0])], rounds=3
    )
    assert run.replayed == 2
    assert [(failure.number, failure.reason) for failure in run.failures] == [
        (2, "the request has inputs z, the signature x")
    ]
    first, second = run.responses
    assert first["y"].tolist() == [3.0, 6.0]
    assert second == "the request has inputs z, the signature x"
    assert len(run.seconds) == 2  # the request that succeeds, in the two rounds after the first
    assert all(seconds > 0 for seconds in run.seconds)


@pytest.fixture
def process(tmp_path, monkeypatch):
    """`process(script)` replaces Python by a shell script."""

    def replace(script):
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return replace


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -SEGV $$", "was killed by SIGSEGV: no output"),
        ("echo 'no memory left' >&2; exit 3", "exited with status 3: no memory left"),
    ],
)
def test_reports_how_the_process_ended(process, tmp_path, script, message):
    process(script)
    with pytest.raises(ExportError, match=f"^the process that ran the model {message}$"):
        run_version(tmp_path)


def test_kills_a_process_that_takes_too_long(process, tmp_path):
    process("exec sleep 600")
    with pytest.raises(DeadlineError, match=r"did not finish within 0\.05 s"):
        run_version(tmp_path, timeout=0.05)
