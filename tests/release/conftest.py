"""A model repository with two models, light servers that serve it, and the commands of a release."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import rpc_server, service
from tests.release.fake_versions import run_with, version_dir
from tests.release.light_server import BROKEN, LightServer, ServerLoop
from tests.saved_models import write_saved_model
from tfserving.cli import dispatch
from tfserving.client import TfRpcClient
from tfserving.release.history import History, HistoryRecord

__all__ = ["rpc_server", "run_with", "service", "version_dir"]

# A command of each kind that changes models.config.
CHANGES = [
    ("promote", "digits", "3"),
    ("rollback", "digits"),
    ("canary", "digits", "3", "--labels-in-use"),
    ("label", "digits", "blue=2"),
    ("add", "more"),
    ("remove", "other"),
]

CONFIG = """\
# Reviewed by the ranking team.
model_config_list {
  config {
    name: "digits"  # handwritten
    base_path: "/models/digits"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 } }
  }

  # Never touch this one.
  config { name: "other", base_path: "/models/other", model_platform: "tensorflow" }
}
"""


@dataclass
class Outcome:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Release:
    """A model repository: digits 1, 2, 3 and other 1; the servers; and the commands."""

    def __init__(self, directory: Path, loop: ServerLoop, capture: Callable[[], Any]) -> None:
        self.models = directory / "models"
        self.config = self.models / "models.config"
        self._loop = loop
        self._capture = capture
        self.servers: list[LightServer] = []
        for version in (1, 2, 3):
            write_saved_model(self.models / "digits" / str(version), variables=False)
        write_saved_model(self.models / "other" / "1", variables=False)
        self.config.write_text(CONFIG)

    def serve(self, count: int = 1, poll: float = 0.0, **options: Any) -> None:
        """Start servers; for `options` see `LightServer`."""
        make = partial(LightServer, self._loop, self.models, self.config, poll, **options)
        self.servers += [make() for _ in range(count)]

    @property
    def addresses(self) -> str:
        return ",".join(server.address for server in self.servers)

    def arguments(self, *words: str) -> list[str]:
        """The arguments of `tfserving` for a command."""
        command, *rest = words
        is_local = command in ("publish", "verify")
        named = ["--server", self.addresses] if self.servers and not is_local else []
        return [command, "--models-dir", str(self.models), "--timeout", "20", *named, *rest]

    def run(self, *words: str) -> Outcome:
        """Run a command in this process."""
        self._capture()
        status = dispatch.main(self.arguments(*words))
        output = self._capture()
        return Outcome(status, output.out, output.err)

    def succeed(self, *words: str) -> Outcome:
        outcome = self.run(*words)
        assert outcome.status == 0, outcome.err
        return outcome

    def fail(self, *words: str, status: int = 1) -> str:
        """Run a command that fails, and return its last line."""
        outcome = self.run(*words)
        assert outcome.status == status, outcome
        assert "Traceback" not in outcome.err
        return outcome.err.splitlines()[-1]

    def break_version(self, version: int, server: LightServer | None = None) -> None:
        """Let a version of digits fail to load, on one server or on all."""
        (self.models / "digits" / str(version) / BROKEN).write_text(str(server.port) if server else "")

    def available(self, model: str = "digits") -> list[list[int]]:
        """For each server, the versions that can be called, newest first."""
        return [
            [one.version for one in client.status(model) if one.state == "AVAILABLE"]
            for client in self.clients()
        ]

    def clients(self) -> Iterator[TfRpcClient]:
        for server in self.servers:
            with TfRpcClient(server.address, "digits") as client:
                yield client

    def labelled(self, label: str) -> list[int]:
        """For each server, the version that responds to a label of digits."""
        return [int(client.infer({"x": [1.0]}, label=label)["version"]) for client in self.clients()]

    @property
    def history(self) -> list[HistoryRecord]:
        return History(self.models).read()

    def hidden_files(self) -> set[str]:
        """The hidden files beside models.config, without the lock and the history."""
        names = {name for name in os.listdir(self.models) if name.startswith(".")}
        return names - {".models.config.lock", ".history.jsonl"}


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[[], AbstractContextManager[None]]:
    """A context manager in which this process is a user without rights; skips the test without root."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and directory != directory.parent:
            directory.chmod(directory.stat().st_mode | 0o055)

    @contextmanager
    def become() -> Iterator[None]:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return become


@pytest.fixture(scope="session")
def server_loop() -> Iterator[ServerLoop]:
    loop = ServerLoop()
    yield loop
    loop.close()


@pytest.fixture
def release(
    tmp_path: Path,
    server_loop: ServerLoop,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Release]:
    for name in ("MODELS_DIR", "MODELS_CONFIG", "START_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("ENGINE", "embedded")
    made = Release(tmp_path, server_loop, capsys.readouterr)
    yield made
    for server in made.servers:
        server.stop()
