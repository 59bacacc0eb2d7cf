"""Fixtures for a real Docker daemon. Everything that they create has one prefix, by which it is removed."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.integration.script_servers import CONFIG, Server, StartServer

ROOT = Path(__file__).parents[2]
SCRIPTS = ("build.sh", "build_ensemble.sh", "run_tf_serving.sh")
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")

MAKE_MODELS = """
import sys
import tensorflow as tf

class Half(tf.Module):
    def __init__(self, offset):
        self.offset = tf.Variable(offset)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": x / 2.0 + self.offset}

for version in sys.argv[2:]:
    model = Half(float(version.rpartition("/")[2]))
    tf.saved_model.save(model, f"{sys.argv[1]}/{version}", signatures={"serving_default": model.__call__})
"""


def skip(reason: str) -> NoReturn:
    """Skips the test, or fails it if Docker is required."""
    if os.environ.get("TFSERVING_REQUIRE_DOCKER") == "1":
        pytest.fail(f"{reason}, and TFSERVING_REQUIRE_DOCKER=1")
    pytest.skip(reason)


class Docker:
    """The docker command, and unique names for containers and images."""

    def __init__(self) -> None:
        self.prefix = f"tfserving-test-{uuid.uuid4().hex[:8]}"
        self._numbers = itertools.count(1)

    def __call__(self, *args: str | Path, timeout: float = 120) -> str:
        """Returns the output of `docker ARGS`. Raises AssertionError with its stderr if it fails."""
        done = self.run(*args, timeout=timeout)
        assert done.returncode == 0, f"docker {' '.join(map(str, args))}: {done.stderr}"
        return done.stdout.strip()

    def run(self, *args: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", *args], capture_output=True, text=True, timeout=timeout)

    def name(self, kind: str) -> str:
        """A name for a container or an image, which is removed after the tests."""
        return f"{self.prefix}-{kind}-{next(self._numbers)}"

    def remove(self, *containers: str) -> None:
        self.run("rm", "--force", "--volumes", *containers)

    def clean(self) -> None:
        containers = self("ps", "--all", "--quiet", "--filter", f"name=^{self.prefix}").split()
        if containers:
            self.remove(*containers)
        images = self(
            "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={self.prefix}*"
        )
        if images:
            self.run("rmi", "--force", *images.split())


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A real daemon; skips the test if none responds."""
    command = Docker()
    try:
        info = command.run("info", "--format", "{{.ServerVersion}}", timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        skip(f"no Docker daemon responds: {error}")
    if info.returncode != 0:
        skip(f"no Docker daemon responds: {info.stderr.strip()}")
    yield command
    command.clean()


@pytest.fixture(scope="session")
def base_image(docker: Docker) -> str:
    """The base image: TFSERVING_TEST_IMAGE, else the default of the scripts."""
    image = os.environ.get("TFSERVING_TEST_IMAGE") or default_base_image()
    if docker.run("image", "inspect", image).returncode != 0:
        pull = docker.run("pull", "--quiet", image, timeout=600)
        if pull.returncode != 0:
            skip(f"no image {image}: {pull.stderr.strip()}")
    return image


def default_base_image() -> str:
    script = 'source "$ROOT/lib/settings.sh"; printf %s "$TF_SERVING_IMAGE"'
    environment = {"PATH": os.environ["PATH"], "ROOT": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", script], env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModels half/1, half/2, other/1: y = x / 2 + version, float32 [n]. Read-only."""
    directory = tmp_path_factory.mktemp("models")
    directory.chmod(0o755)  # for the image's user
    versions = ("half/1", "half/2", "other/1")
    made = subprocess.run(
        [sys.executable, "-c", MAKE_MODELS, directory, *versions], capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stderr
    return directory


class Container:
    """A hardened container, with its ports published on 127.0.0.1 unless it uses another's network."""

    def __init__(
        self,
        docker: Docker,
        image: str,
        options: Sequence[str | Path],
        args: Sequence[str],
        ports: bool = True,
    ) -> None:
        self.docker = docker
        self.name = docker.name("container")
        published = ("--publish", "127.0.0.1::8500", "--publish", "127.0.0.1::8501") if ports else ()
        fixed = (*HARDENED, *published, "--health-interval", "1s")
        docker("run", "--detach", "--name", self.name, *fixed, *options, image, *args)

    def inspect(self, template: str) -> str:
        return self.docker("inspect", "--format", template, self.name)

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.docker.run("exec", self.name, *command)

    def check(self) -> tuple[int, str]:
        """Runs the health check; returns its exit code and its output."""
        done = self.exec("tfserving-healthcheck")
        return done.returncode, (done.stdout + done.stderr).strip()

    def port(self, inside: int) -> int:
        return int(self.docker("port", self.name, str(inside)).rpartition(":")[2])

    def rest(self, path: str, body: object = None) -> tuple[int, Any]:
        """Sends a REST request to the published port; returns the HTTP status and the JSON."""
        url = f"http://127.0.0.1:{self.port(8501)}{path}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(url, data, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def logs(self) -> str:
        done = self.docker.run("logs", self.name)
        return done.stdout + done.stderr

    def wait_until(self, condition: Callable[[], bool], name: str, seconds: float = 90) -> None:
        """Waits for the condition; fails with its name and the log after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not {name} within {seconds} s\n{self.logs()}"
            time.sleep(0.1)

    def wait_until_healthy(self) -> None:
        """Waits until Docker reports healthy."""
        self.wait_until(lambda: self.health() == "healthy", "healthy")

    def health(self) -> str:
        state, _, health = self.inspect("{{.State.Status}} {{.State.Health.Status}}").partition(" ")
        assert state == "running", self.logs()
        return health

    def kill(self, signal: str) -> None:
        self.docker("kill", "--signal", signal, self.name)

    def exit_code(self) -> int:
        """Waits until the container exits."""
        return int(self.docker("wait", self.name))


StartContainer = Callable[..., Container]


@pytest.fixture(scope="session")
def start_session_container(docker: Docker) -> StartContainer:
    """start(image, *args, options=()): a container that is removed after all tests."""

    def start(image: str, *args: str, options: Sequence[str | Path] = ()) -> Container:
        return Container(docker, image, options, args)

    return start


@pytest.fixture
def start_container(docker: Docker) -> Iterator[StartContainer]:
    """start(image, *args, options=()): a container that is removed after the test."""
    started: list[Container] = []

    def start(image: str, *args: str, options: Sequence[str | Path] = ()) -> Container:
        started.append(Container(docker, image, options, args))
        return started[-1]

    yield start
    if started:
        docker.remove(*(container.name for container in started))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the scripts of this checkout, and a separate .run."""
    directory = tmp_path_factory.mktemp("checkout")
    for name in SCRIPTS:
        shutil.copy(ROOT / name, directory)
    for name in ("docker", "lib", "tfserving", "Dockerfile"):
        (directory / name).symlink_to(ROOT / name)
    return directory


@pytest.fixture(scope="session")
def images(
    docker: Any, base_image: str, root: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The images of both build scripts: single (half/2) and ensemble."""
    names = {"single": docker.name("single"), "multi": docker.name("ensemble")}
    config = tmp_path_factory.mktemp("config") / "models.config"
    config.write_text(CONFIG)
    variables = {"TF_SERVING_IMAGE": base_image, "MODELS_DIR": str(models)}
    builder = Server(root, "docker", variables)
    single = builder.script("build.sh", MODEL_NAME="half", IMAGE_NAME=names["single"])
    assert single.returncode == 0, single.stderr
    ensemble = builder.script("build_ensemble.sh", IMAGE_NAME=names["multi"], MODELS_CONFIG=str(config))
    assert ensemble.returncode == 0, ensemble.stderr
    return names


@pytest.fixture(params=["docker", "embedded"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def make_servers(request: pytest.FixtureRequest, root: Path) -> Iterator[StartServer]:
    """Yield a function that makes a server of the scripts; the servers are stopped at the end."""
    made: list[Server] = []

    def make(engine: str, mode: str = "single", **variables: str) -> Server:
        name = f"tfserving-test-{uuid.uuid4().hex[:8]}"
        if engine == "docker":
            name = request.getfixturevalue("docker").name("server")
            variables = {"IMAGE_NAME": request.getfixturevalue("images")[mode], **variables}
        if mode == "single":
            variables = {"MODEL_NAME": "half", **variables}
        made.append(Server(root, engine, {"MODE": mode, "CONTAINER_NAME": name, **variables}))
        return made[-1]

    yield make
    for server in made:
        server.run("stop")


@pytest.fixture
def make_server(request: pytest.FixtureRequest, root: Path) -> Iterator[StartServer]:
    """make_server(engine, mode, **variables): a server that the fixture stops after the test."""
    with make_servers(request, root) as make:
        yield make


@pytest.fixture(scope="module")
def make_module_server(request: pytest.FixtureRequest, root: Path) -> Iterator[StartServer]:
    """As `make_server`, for a server that all tests of a module share."""
    with make_servers(request, root) as make:
        yield make
