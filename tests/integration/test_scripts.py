"""The doors on real engines: build, run, call, hot update, roll back, stop."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tf_rpc_client import TfRestClient, TfRpcClient

ROOT = Path(__file__).parents[2]
DOORS = ("build.sh", "build_ensemble.sh", "run_tf_serving.sh")
# How a server ends that was told to; 137 is one that was killed.
STOPPED = ("0", "143")
DEADLINE = 60.0

CONFIG = """model_config_list {
  config {
    name: "half" base_path: "/models/half" model_platform: "tensorflow"
    model_version_policy { all {} }
    version_labels { key: "stable" value: 1 }
  }
  config { name: "other" base_path: "/models/other" model_platform: "tensorflow" }
}
"""
PINNED = CONFIG.replace("all {}", "specific { versions: 1 }")


def eventually(what: Callable[[], Any], wanted: Any) -> None:
    """Asks until the answer is the wanted one."""
    deadline = time.monotonic() + DEADLINE
    while (answer := what()) != wanted:
        assert time.monotonic() < deadline, f"{answer!r} is not {wanted!r} after {DEADLINE} s"
        time.sleep(0.1)


def free_port() -> int:
    """Below those that the system gives to connections, which could be taken meanwhile."""
    while True:
        port = random.randrange(10000, 32000)
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            return port


@dataclass
class Server:
    """One server to be started by the door, on one engine: its variables, and calls to it."""

    root: Path
    engine: str
    variables: dict[str, str]
    grpc: str = field(init=False)
    rest: str = field(init=False)

    def __post_init__(self) -> None:
        ports = [free_port(), free_port()]
        self.grpc, self.rest = (f"127.0.0.1:{port}" for port in ports)
        self.variables |= {"GRPC_PORT": str(ports[0]), "REST_PORT": str(ports[1]), "ENGINE": self.engine}

    @property
    def name(self) -> str:
        return self.variables["CONTAINER_NAME"]

    def door(self, door: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": os.environ["HOME"],
        }
        return subprocess.run(
            ["bash", self.root / door, *arguments],
            env={**environment, **self.variables, **variables},
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def run(self, *arguments: str, **variables: str) -> str:
        """What the door prints; it has to succeed."""
        done = self.door("run_tf_serving.sh", *arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def states(self) -> list[list[str]]:
        """What status tells: model, version, state."""
        return [line.split() for line in self.door("run_tf_serving.sh", "status").stdout.splitlines()[1:]]

    def over_grpc(self, x: float, model: str = "half", **options: Any) -> float:
        with TfRpcClient(self.grpc, model) as client:
            return float(client.infer([x], **options)["y"][0])

    def over_http(self, x: float, model: str = "half", **options: Any) -> float:
        with TfRestClient(self.rest, model) as client:
            return float(client.infer([x], **options)["y"][0])

    def serves(self, offset: int, **options: Any) -> None:
        """Both APIs answer y = x / 2 + offset, the version of half that is meant."""
        assert self.over_grpc(4.0, **options) == self.over_http(4.0, **options) == 2.0 + offset


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The doors of this checkout, with a .run of their own."""
    directory = tmp_path_factory.mktemp("checkout")
    for name in DOORS:
        shutil.copy(ROOT / name, directory)
    for name in ("lib", "tfserving", "Dockerfile"):
        (directory / name).symlink_to(ROOT / name)
    return directory


@pytest.fixture
def repository(models: Path, tmp_path: Path) -> Path:
    """Models to change: half/1, other/1, and a config for half and other. half/2 can be published."""
    directory = tmp_path / "models"
    for version in ("half/1", "other/1"):
        shutil.copytree(models / version, directory / version)
    (directory / "models.config").write_text(CONFIG)
    # pytest's directories are closed to the image's user, but what is mounted is not looked at from above.
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
    return directory


@pytest.fixture
def publish(models: Path, repository: Path) -> Callable[[str], None]:
    """publish("half/2"): copies a version under another name, then gives it its number by one rename."""

    def publish(version: str) -> None:
        staging = repository / version.replace("/", "/.staging-")
        shutil.copytree(models / version, staging)
        subprocess.run(["chmod", "-R", "a+rX", staging], check=True)
        staging.rename(repository / version)

    return publish


def replace(file: Path, text: str) -> None:
    """Saves as editors do, by replacing the file."""
    new = file.with_name(".new")
    new.write_text(text)
    new.chmod(0o644)
    new.rename(file)


@pytest.fixture(scope="module")
def images(
    docker: Any, base_image: str, root: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The images that the doors build: single (half/2) and ensemble."""
    names = {"single": docker.name("single"), "multi": docker.name("ensemble")}
    config = tmp_path_factory.mktemp("config") / "models.config"
    config.write_text(CONFIG)
    variables = {"TF_SERVING_IMAGE": base_image, "MODELS_DIR": str(models)}
    builder = Server(root, "docker", variables)
    single = builder.door("build.sh", MODEL_NAME="half", IMAGE_NAME=names["single"])
    assert single.returncode == 0, single.stderr
    ensemble = builder.door("build_ensemble.sh", IMAGE_NAME=names["multi"], MODELS_CONFIG=str(config))
    assert ensemble.returncode == 0, ensemble.stderr
    return names


StartServer = Callable[..., Server]


@pytest.fixture(params=["docker", "embedded"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_server(request: pytest.FixtureRequest, root: Path) -> Iterator[StartServer]:
    """make_server(engine, mode, **variables): a server that is stopped with the test."""
    made: list[Server] = []

    def make(engine: str, mode: str = "single", **variables: str) -> Server:
        name = f"tfserving-test-{os.getpid()}-{len(made)}"
        if engine == "docker":
            name = request.getfixturevalue("docker").name("door")
            variables = {"IMAGE_NAME": request.getfixturevalue("images")[mode], **variables}
        if mode == "single":
            variables = {"MODEL_NAME": "half", **variables}
        made.append(Server(root, engine, {"MODE": mode, "CONTAINER_NAME": name, **variables}))
        return made[-1]

    yield make
    for server in made:
        server.run("stop")


class TestImages:
    """What is baked, and how it runs."""

    def test_one_model(self, docker: Any, make_server: StartServer) -> None:
        server = make_server("docker")
        server.run()
        server.serves(2)
        assert server.states() == [["half", "2", "AVAILABLE"]]

        eventually(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", server.name), "healthy")
        assert server.run("status").splitlines()[0].endswith(", healthy")
        assert docker("exec", server.name, "id", "-u") == "65532"
        host = json.loads(docker("inspect", "--format", "{{json .HostConfig}}", server.name))
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
        assert docker.run("exec", server.name, "touch", "/models/x").returncode != 0

        docker("stop", "--time", "3", server.name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", server.name) in STOPPED
        assert server.door("run_tf_serving.sh", "status").returncode == 1
        server.run()  # in place of the one that ended
        server.serves(2)

    def test_many_models(self, docker: Any, images: dict[str, str], make_server: StartServer) -> None:
        labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", images["multi"]))
        assert labels["tfserving.mode"] == "multi"
        assert labels["tfserving.models"] == "half:1,2 other:1"
        server = make_server("docker", "multi")
        server.run()
        assert server.states() == [
            ["half", "2", "AVAILABLE"],
            ["half", "1", "AVAILABLE"],
            ["other", "1", "AVAILABLE"],
        ]
        server.serves(2)
        server.serves(1, version=1)
        server.serves(1, label="stable")
        server.serves(1, model="other")

    def test_the_timeout_of_the_stop_covers_the_drain(self, docker: Any, make_server: StartServer) -> None:
        server = make_server("docker", DRAIN_SECONDS="1")
        server.run()
        assert docker("inspect", "--format", "{{.Config.StopTimeout}}", server.name) == "16"
        docker("stop", server.name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", server.name) in STOPPED
        assert "stopping in 1 s" in docker.run("logs", server.name).stderr

    def test_a_gpu_with_an_image_without_cuda(self, make_server: StartServer) -> None:
        refused = make_server("docker", GPU="0").door("run_tf_serving.sh")
        assert refused.returncode == 2
        assert "has no CUDA; build it on the -gpu image: TF_SERVING_IMAGE=" in refused.stderr

    def test_the_model_of_another_image(self, make_server: StartServer) -> None:
        refused = make_server("docker", MODEL_NAME="other").door("run_tf_serving.sh")
        assert refused.returncode == 2
        assert "holds model half, not other; build it: MODEL_NAME=other" in refused.stderr


class TestServers:
    """The same on either engine."""

    def test_hot_update(
        self, engine: str, repository: Path, publish: Callable[[str], None], make_server: StartServer
    ) -> None:
        server = make_server(engine, MODELS_DIR=str(repository))
        server.run()
        server.serves(1)
        publish("half/2")
        eventually(lambda: server.over_grpc(4.0), 4.0)
        server.serves(2)
        assert server.states()[0] == ["half", "2", "AVAILABLE"]
        (repository / "half" / "2").rename(repository / "half" / ".broken")
        eventually(lambda: server.over_http(4.0), 3.0)
        server.serves(1)

    def test_rollback_by_pinning_in_a_polled_config(
        self, engine: str, repository: Path, publish: Callable[[str], None], make_server: StartServer
    ) -> None:
        publish("half/2")
        polled = {"MODELS_DIR": str(repository), "MODEL_CONFIG_FILE_POLL_WAIT_SECONDS": "1"}
        server = make_server(engine, "multi", **polled)
        server.run()
        server.serves(2)
        replace(repository / "models.config", PINNED)
        eventually(lambda: server.over_grpc(4.0), 3.0)
        server.serves(1)
        server.serves(1, model="other")
        replace(repository / "models.config", CONFIG)
        eventually(lambda: server.over_http(4.0), 4.0)

    def test_a_config_elsewhere(
        self, engine: str, repository: Path, tmp_path: Path, make_server: StartServer
    ) -> None:
        directory = tmp_path / "my, configs"
        directory.mkdir()
        config = directory / "ours.config"
        replace(config, PINNED)
        directory.chmod(0o755)
        variables = {"MODELS_DIR": str(repository), "MODELS_CONFIG": str(config)}
        server = make_server(engine, "multi", MODEL_CONFIG_FILE_POLL_WAIT_SECONDS="1", **variables)
        server.run()
        server.serves(1)
        replace(config, PINNED.replace('"other"', '"another"'))
        eventually(server.states, [["half", "1", "AVAILABLE"], ["another", "1", "AVAILABLE"]])

    def test_two_side_by_side(self, engine: str, repository: Path, make_server: StartServer) -> None:
        first = make_server(engine, MODELS_DIR=str(repository))
        second = make_server(engine, "multi", MODELS_DIR=str(repository))
        first.run()
        second.run()
        first.serves(1)
        second.serves(1, model="other")
        first.run("stop")
        second.serves(1, model="other")
        assert first.door("run_tf_serving.sh", "status").returncode == 1

    def test_a_used_port(self, engine: str, repository: Path, make_server: StartServer) -> None:
        first = make_server(engine, MODELS_DIR=str(repository))
        first.run()
        second = make_server(engine, MODELS_DIR=str(repository))
        for name in ("GRPC_PORT", "REST_PORT"):
            refused = second.door("run_tf_serving.sh", **{name: first.variables[name]})
            assert refused.returncode == 2
            assert f"error: port {first.variables[name]} is in use by" in refused.stderr
        first.serves(1)

    def test_a_name_in_use(self, engine: str, repository: Path, make_server: StartServer) -> None:
        server = make_server(engine, MODELS_DIR=str(repository))
        server.run()
        refused = server.door("run_tf_serving.sh")
        assert refused.returncode == 2
        assert (
            f"{server.name} runs already ({engine}, gRPC {server.grpc}, REST {server.rest})" in refused.stderr
        )
        server.serves(1)

    def test_a_model_that_cannot_be_loaded(
        self, engine: str, repository: Path, make_server: StartServer
    ) -> None:
        (repository / "half" / "1" / "saved_model.pb").write_bytes(b"\xff garbage")
        server = make_server(engine, MODELS_DIR=str(repository), START_TIMEOUT="30")
        failed = server.door("run_tf_serving.sh", "--", "--max_num_load_retries=0")
        assert failed.returncode == 1
        assert "what it logged is above" in failed.stderr
        assert "half" in failed.stderr
        assert "is not running" in server.door("run_tf_serving.sh", "status").stderr

    def test_flags_of_the_server(self, engine: str, repository: Path, make_server: StartServer) -> None:
        server = make_server(engine, MODELS_DIR=str(repository), ENABLE_MODEL_WARMUP="false")
        server.run("--", "--enable_model_warmup=true", "--grpc_max_threads=8")
        server.serves(1)
        refused = make_server(engine, MODELS_DIR=str(repository)).door(
            "run_tf_serving.sh", "--", "--no_such=1"
        )
        assert refused.returncode == 1
        assert "no_such" in refused.stderr


def test_the_embedded_server_stops_in_order(repository: Path, root: Path, make_server: StartServer) -> None:
    server = make_server("embedded", MODELS_DIR=str(repository))
    server.run()
    process = int((root / ".run" / f"{server.name}.pid").read_text())
    server.run("stop")
    command = Path(f"/proc/{process}/cmdline")  # empty, if whoever is its parent by now leaves it a zombie
    assert not command.exists() or command.read_bytes() == b""
    assert "stopping" in (root / ".run" / f"{server.name}.log").read_text()
