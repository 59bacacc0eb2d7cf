"""The image: its contents, its container, its health check, and how it stops."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
# Exit codes after SIGTERM: the server's own, or that of SIGTERM. 137 would be a kill.
STOPPED = (0, 143)

CONFIG = """
model_config_list {
  config {
    name: "half" base_path: "/models/half" model_platform: "tensorflow"
    model_version_policy { all {} }
    version_labels { key: "stable" value: 1 }
  }
  config { name: 'other'  # name: "comment"
    base_path: '/models/other' model_platform: "tensorflow" }
}
"""

BuildImage = Callable[..., str]


@pytest.fixture(scope="module")
def build_image(docker: Any, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> BuildImage:
    """Builds an image from the context that the build scripts prepare; returns its name."""

    def build(
        models: Path, *versions: str, config: str | None = None, client: tuple[str, ...] = ("docker",)
    ) -> str:
        context = tmp_path_factory.mktemp("context")
        shutil.copy(ROOT / "Dockerfile", context)
        for script in ("entrypoint.sh", "healthcheck.sh", "server_config.sh"):
            shutil.copy(ROOT / "docker" / script, context)
        for version in versions:
            shutil.copytree(models / version, context / "models" / version)
        if config is not None:
            (context / "models" / "models.config").write_text(config)
        subprocess.run(["chmod", "-R", "a+rX", context], check=True)
        image: str = docker.name("image")
        values = {
            "TF_SERVING_IMAGE": base_image,
            "MODE": "single" if config is None else "multi",
            "MODEL_NAME": "half" if config is None else "",
            "MODELS": " ".join(version.replace("/", ":") for version in versions),
        }
        arguments = [word for name, value in values.items() for word in ("--build-arg", f"{name}={value}")]
        command = [*client, "build", "--tag", image, *arguments, context]
        built = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert built.returncode == 0, built.stderr
        return image

    return build


@pytest.fixture(scope="module")
def single(build_image: BuildImage, models: Path) -> str:
    return build_image(models, "half/1")


@pytest.fixture(scope="module")
def ensemble(build_image: BuildImage, models: Path) -> str:
    return build_image(models, "half/1", "half/2", "other/1", config=CONFIG)


@pytest.fixture(scope="module")
def running(single: str, start_session_container: Callable[..., Any]) -> Any:
    """A healthy container of the single image, for tests that do not change it."""
    container = start_session_container(single)
    container.wait_until_healthy()
    return container


def classic_client() -> tuple[str, ...]:
    return ("env", "DOCKER_BUILDKIT=0", "docker")


def buildkit_client() -> tuple[str, ...]:
    """A docker command on PATH that builds with BuildKit, as a plugin or, before Docker 23, built in."""
    for folder in os.get_exec_path():
        client = ("env", "DOCKER_BUILDKIT=1", f"{folder}/docker")
        if not os.access(client[-1], os.X_OK):
            continue
        probe = subprocess.run([*client, "build", "--help"], capture_output=True, text=True)
        if "--progress" in probe.stdout:
            return client
    return pytest.skip("no docker command on PATH builds with BuildKit")


class TestImage:
    @pytest.mark.parametrize("client", [classic_client, buildkit_client])
    def test_builds_with_either_builder(
        self, docker: Any, build_image: BuildImage, models: Path, client: Callable[[], tuple[str, ...]]
    ) -> None:
        image = build_image(models, "half/2", client=client())
        label = docker("inspect", "--format", '{{index .Config.Labels "tfserving.model_name"}}', image)
        assert label == "half"
        command = ("bash", "-c", "cat /models/half/2/saved_model.pb | wc -c")
        assert (
            int(docker("run", "--rm", image, *command)) == (models / "half/2/saved_model.pb").stat().st_size
        )

    def test_labels_describe_the_models(
        self, docker: Any, single: str, ensemble: str, base_image: str
    ) -> None:
        labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", single))
        assert labels["tfserving.mode"] == "single"
        assert labels["tfserving.model_name"] == "half"
        assert labels["tfserving.models"] == "half:1"
        assert labels["org.opencontainers.image.base.name"] == base_image
        assert labels["org.opencontainers.image.title"] == "TensorFlow Serving with half:1"
        labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", ensemble))
        assert labels["tfserving.mode"] == "multi"
        assert labels["tfserving.model_name"] == ""
        assert labels["tfserving.models"] == "half:1 half:2 other:1"

    def test_has_user_entrypoint_and_healthcheck(self, docker: Any, single: str) -> None:
        config = json.loads(docker("inspect", "--format", "{{json .Config}}", single))
        assert config["User"] == "65532:65532"
        assert config["Entrypoint"] == ["tfserving-entrypoint"]
        assert not config.get("Cmd")
        assert config["Healthcheck"]["Test"] == ["CMD", "tfserving-healthcheck"]
        assert {"8500/tcp", "8501/tcp"} <= config["ExposedPorts"].keys()
        assert {"MODE=single", "MODEL_NAME=half", "MODEL_BASE_PATH=/models", "DRAIN_SECONDS=0"} <= set(
            config["Env"]
        )

    def test_adds_only_its_own_files(self, docker: Any, single: str, base_image: str) -> None:
        def files(image: str) -> set[str]:
            find = (
                "/",
                "-xdev",
                "(",
                "-path",
                "/proc",
                "-o",
                "-path",
                "/sys",
                ")",
                "-prune",
                "-o",
                "-type",
                "f",
            )
            listed = docker("run", "--rm", "--user", "0", "--entrypoint", "find", image, *find, "-print")
            return set(listed.splitlines())

        assert files(single) - files(base_image) == {
            "/usr/local/bin/tfserving-entrypoint",
            "/usr/local/bin/tfserving-healthcheck",
            "/usr/local/bin/server_config.sh",
            "/models/half/1/saved_model.pb",
            "/models/half/1/fingerprint.pb",
            "/models/half/1/variables/variables.index",
            "/models/half/1/variables/variables.data-00000-of-00001",
        }

    def test_runs_a_command_instead_of_the_server(self, docker: Any, single: str) -> None:
        command = ("bash", "-c", 'echo "$0, $MODE"; exit 0', "it's me")
        assert docker("run", "--rm", single, *command) == "it's me, single"


class TestRuns:
    def test_runs_without_privileges(self, running: Any) -> None:
        assert running.exec("id", "-u").stdout == "65532\n"
        assert running.exec("touch", "/models/x").returncode != 0
        assert running.exec("touch", "/tmp/x").returncode != 0
        status = dict(
            line.split(":", 1) for line in running.exec("cat", "/proc/1/status").stdout.splitlines()
        )
        assert status["Uid"].split() == ["65532"] * 4
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"].strip() == "1"

    def test_serves_on_the_published_port(self, running: Any) -> None:
        assert running.rest("/v1/models/half:predict", {"instances": [1.0, 2.0]}) == (
            200,
            {"predictions": [1.5, 2.0]},
        )

    def test_is_healthy(self, running: Any) -> None:
        assert running.check() == (0, "healthy: half AVAILABLE")

    def test_flags_override_the_defaults(self, single: str, start_container: Callable[..., Any]) -> None:
        flags = ("--rest_api_port=8601", "--model_name=renamed", "--grpc_max_threads=8")
        container = start_container(single, *flags)
        container.wait_until_healthy()
        assert container.check() == (0, "healthy: renamed AVAILABLE")

    def test_serves_every_model_of_a_config(self, ensemble: str, start_container: Callable[..., Any]) -> None:
        container = start_container(ensemble)
        container.wait_until_healthy()
        assert container.check() == (0, "healthy: half other AVAILABLE")
        status, response = container.rest("/v1/models/half/labels/stable:predict", {"instances": [0.0]})
        assert (status, response) == (200, {"predictions": [1.0]})
        status, response = container.rest("/v1/models/half/versions/2:predict", {"instances": [0.0]})
        assert (status, response) == (200, {"predictions": [2.0]})

    def test_unhealthy_names_the_missing_model(
        self, single: str, models: Path, tmp_path: Path, start_container: Callable[..., Any]
    ) -> None:
        tmp_path.chmod(0o755)
        config = tmp_path / "models.config"
        model = 'config { name: "%s" base_path: "/models/%s" model_platform: "tensorflow" }\n'
        config.write_text("model_config_list { %s }\n" % (model % ("half", "half")))
        poll = "--model_config_file_poll_wait_seconds=1"
        container = start_container(
            single,
            "--model_config_file=/config/models.config",
            poll,
            options=("--volume", f"{tmp_path}:/config:ro"),
        )
        container.wait_until_healthy()
        with config.open("a") as text:
            text.write("model_config_list { %s }\n" % (model % ("absent", "absent")))
        code, line = container.check()
        assert code == 1
        assert line.startswith("unhealthy: model absent")

    def test_exits_if_its_user_cannot_read_the_models(
        self, single: str, models: Path, tmp_path: Path, start_container: Callable[..., Any]
    ) -> None:
        private = tmp_path / "models"
        shutil.copytree(models, private)
        private.chmod(0o700)
        container = start_container(single, options=("--volume", f"{private}:/models:ro"))
        assert container.exit_code() == 1
        assert "user 65532 cannot read /models; run chmod -R a+rX" in container.logs()

    def test_exits_if_a_setting_is_not_valid(self, single: str, start_container: Callable[..., Any]) -> None:
        container = start_container(single, options=("--env", "DRAIN_SECONDS=soon"))
        assert container.exit_code() == 2
        assert "DRAIN_SECONDS=soon is not a valid number of seconds" in container.logs()


class TestStops:
    def test_immediately(self, docker: Any, single: str, start_container: Callable[..., Any]) -> None:
        container = start_container(single)
        container.wait_until_healthy()
        docker("stop", "--time", "3", container.name)
        assert container.exit_code() in STOPPED

    def test_during_the_start(self, docker: Any, single: str, start_container: Callable[..., Any]) -> None:
        container = start_container(single)
        container.wait_until(lambda: "no response from port" in container.check()[1], "starting")
        docker("stop", "--time", "3", container.name)
        assert container.exit_code() in STOPPED

    def test_serves_unhealthy_while_it_drains(
        self, docker: Any, single: str, start_container: Callable[..., Any]
    ) -> None:
        container = start_container(single, options=("--env", "DRAIN_SECONDS=600"))
        container.wait_until_healthy()
        container.kill("TERM")
        container.wait_until(lambda: "stopping in 600 s" in container.logs(), "draining")
        assert container.check() == (1, "unhealthy: draining: received a stop signal")
        assert container.rest("/v1/models/half:predict", {"instances": [1.0]})[0] == 200

        docker("stop", "--time", "3", container.name)  # the second signal
        assert container.exit_code() in STOPPED

        docker("start", container.name)
        container.wait_until_healthy()

    def test_after_its_drain(self, docker: Any, single: str, start_container: Callable[..., Any]) -> None:
        container = start_container(single, options=("--env", "DRAIN_SECONDS=1"))
        container.wait_until_healthy()
        docker("stop", "--time", "60", container.name)
        assert container.exit_code() in STOPPED
        assert "stopping in 1 s" in container.logs()

    def test_a_drain_does_not_affect_another_container(
        self, single: str, start_container: Callable[..., Any]
    ) -> None:
        first = start_container(single, options=("--ipc", "shareable", "--env", "DRAIN_SECONDS=600"))
        second = start_container(single, options=("--ipc", f"container:{first.name}"))
        first.wait_until_healthy()
        second.wait_until_healthy()
        first.kill("TERM")
        first.wait_until(lambda: first.check()[0] == 1, "draining")
        assert second.check()[0] == 0

    @pytest.mark.parametrize("flag", ["--model_config_file=/etc/passwd", "--grpc_max_threads=many"])
    def test_fails_if_the_server_exits(
        self, single: str, start_container: Callable[..., Any], flag: str
    ) -> None:
        container = start_container(single, flag)
        assert container.exit_code() not in (0, 137)
