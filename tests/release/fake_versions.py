"""Fixtures that run versions without TensorFlow and without a new process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.fakes import signature_def
from tests.saved_models import saved_model
from tfserving.export import replay as replay_module
from tfserving.wire import predict
from tfserving.wire.dtypes import DType


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`run_with(function)` runs versions on disk with `function(inputs)` instead of in a new process.

    If the function raises, the process failed; if it returns text, the request failed.
    """

    def use(function, *, failures=(), seconds=()):
        def run_version(version_dir, *, replay=True, requests=(), **_):
            responses = [function(dict(predict.decode_request(request).read())) for request in requests]
            return replay_module.VersionRun(int(replay), list(failures), responses, list(seconds))

        monkeypatch.setattr(replay_module, "run_version", run_version)

    return use


@pytest.fixture
def version_dir(tmp_path: Path) -> Path:
    """m/2, a version without variables; its signature is x -> y, both float32 of shape (-1,)."""
    model = saved_model("Placeholder")
    vector = (DType.DT_FLOAT, (None,))
    definition = signature_def({"x": vector}, {"y": vector})
    model.meta_graphs[0].signature_def["serving_default"].CopyFrom(definition)
    path = tmp_path / "m" / "2"
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(model.SerializeToString())
    return path
