"""Fixtures of the subcommands: a runner, and those of the packages that they call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.client.conftest import rest_server, rpc_server, service
from tests.export.conftest import call_signature, keras_model, signature
from tests.repository.conftest import make_version, models_dir

__all__ = [
    "call_signature",
    "keras_model",
    "make_version",
    "models_dir",
    "rest_server",
    "rpc_server",
    "service",
    "signature",
]

Result = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`run(check.main, "--config", "f")` returns exit status, stdout and stderr."""

    def run_main(main: Callable[[Sequence[str]], int], *argv: str) -> Result:
        try:
            status = main(argv)
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run_main


@pytest.fixture
def only_named_servers(monkeypatch, tmp_path):
    """Hides servers that run_tf_serving.sh started on this machine, and the user's settings."""
    for name in ("MODELS_DIR", "MODELS_CONFIG", "START_TIMEOUT", "MEMORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENGINE", "embedded")
    monkeypatch.setenv("RUN_DIR", str(tmp_path / "run"))


@pytest.fixture
def in_repository(models_dir, monkeypatch):
    """Runs the test in a directory that contains the model repository `models`."""
    monkeypatch.chdir(models_dir.parent)
