"""Releases on the servers of both engines that run_tf_serving.sh started."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.release_callers import Allowed, Callers
from tests.integration.script_servers import CONFIG as HALF_CONFIG
from tests.integration.script_servers import StartServer, find_free_ports
from tests.versioned_model import VersionedModel
from tfserving.cli import dispatch

pytestmark = pytest.mark.tensorflow

CONFIG = """\
# The ranking team owns this file.
model_config_list {
  config { name: "m" base_path: "/models/m" model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 } }
    version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 1 }
  }
}
"""


@dataclass(frozen=True)
class Replicas:
    """Two servers of one models.config: the variables that commands find them by, and their addresses."""

    engine: str
    models: Path
    run_dir: Path
    grpc: list[str]
    rest: list[str]

    def set_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("MODELS_CONFIG", "START_TIMEOUT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("MODELS_DIR", str(self.models))
        monkeypatch.setenv("RUN_DIR", str(self.run_dir))
        monkeypatch.setenv("ENGINE", self.engine)


@pytest.fixture(scope="module", params=["docker", "embedded"])
def replicas(
    request: pytest.FixtureRequest,
    versioned_model: VersionedModel,
    make_module_server: StartServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Replicas:
    engine = request.param
    models = tmp_path_factory.mktemp("models")
    for version in (1, 2, 3):
        versioned_model.publish(models / "m", version)
    (models / "models.config").write_text(CONFIG)
    subprocess.run(["chmod", "-R", "a+rX", models], check=True)  # for the image's user
    ports = find_free_ports()
    server = make_module_server(engine, "multi", MODELS_DIR=str(models), REPLICAS="2", **ports)
    grpc = server.run().strip().split(",")
    rest = [f"127.0.0.1:{int(ports['REST_PORT']) + step}" for step in (0, 2)]
    return Replicas(engine, models, server.root / ".run", grpc, rest)


@pytest.mark.parametrize("count", [1, 2], ids=["one server", "two servers"])
def test_no_call_fails_and_each_response_is_from_an_allowed_version(
    replicas: Replicas, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas.set_variables(monkeypatch)
    used = slice(-count, None)
    # Without --server, the commands find both.
    named = ["--server", replicas.grpc[1]] if count == 1 else []
    allowed = Allowed(1)
    with Callers(replicas.grpc[used], replicas.rest[used], "m") as callers:
        callers.wait(calls=100)
        for words, default, stable, canary in (
            (("promote", "m", "2"), 2, 2, 2),
            (("canary", "m", "3", "--labels-in-use"), 3, 2, 3),
            (("rollback", "m"), 2, 2, 2),
            (("promote", "m", "3"), 3, 3, 3),
            (("canary", "m", "1"), 3, 3, 1),
            (("rollback", "m"), 3, 3, 3),
            (("rollback", "m"), 2, 2, 2),
            (("rollback", "m"), 1, 1, 1),
        ):
            with allowed.change(default, stable, canary):
                assert dispatch.main([*words, *named]) == 0
            callers.wait(calls=100)
    assert allowed.find_wrong(callers.calls) == []
    assert {call.version for call in callers.calls} == {1, 2, 3}
    assert (replicas.models / "models.config").read_text() == CONFIG
    changing, between = (1000 * allowed.find_p99(callers.calls, changing=one) for one in (True, False))
    print(f"{len(callers.calls)} calls, p99 {between:.1f} ms, during changes {changing:.1f} ms")


def test_a_config_in_the_image_is_not_changed(
    make_server: StartServer,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = make_server("docker", "multi")
    server.run()
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "models" / "models.config").write_text(HALF_CONFIG)
    Replicas("docker", tmp_path / "models", tmp_path / "run", [], []).set_variables(monkeypatch)
    promote = ["promote", "half", "1"]
    assert dispatch.main([*promote, "--server", server.grpc]) == 1
    what_to_do = (
        "it reads the models.config in its image, so its next start would undo a change; start it with "
        "MODELS_DIR or MODELS_CONFIG set, or build an image with the new config and run "
        "`run_tf_serving.sh update`"
    )
    message = f"server {server.name} ({server.grpc}): {what_to_do}; nothing was changed"
    assert message in capsys.readouterr().err
    assert dispatch.main(promote) == 0
    assert f"note: {server.name} ({server.grpc}) is not changed: {what_to_do}" in capsys.readouterr().err
    server.serves(2)
