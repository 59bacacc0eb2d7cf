"""The scripts on real engines: build, run, call, update, roll back, stop."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.script_servers import CONFIG, Server, StartServer, eventually, find_free_ports
from tf_rpc_client import TfRpcClient

ROOT = Path(__file__).parents[2]
# Exit codes after SIGTERM; 137 would be a kill.
STOPPED = ("0", "143")
PINNED = CONFIG.replace("all {}", "specific { versions: 1 }")


@pytest.fixture
def repository(models: Path, tmp_path: Path) -> Path:
    """A writable repository: half/1, other/1, and a config for both."""
    directory = tmp_path / "models"
    for version in ("half/1", "other/1"):
        shutil.copytree(models / version, directory / version)
    (directory / "models.config").write_text(CONFIG)
    # for the image's user; the mode of the parent directories does not matter for a mount
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
    return directory


@pytest.fixture
def publish(models: Path, repository: Path) -> Callable[[str], None]:
    """publish("half/2"): copies a version to a staging name, then renames it."""

    def publish(version: str) -> None:
        staging = repository / version.replace("/", "/.staging-")
        shutil.copytree(models / version, staging)
        subprocess.run(["chmod", "-R", "a+rX", staging], check=True)
        staging.rename(repository / version)

    return publish


def replace(file: Path, text: str) -> None:
    """Writes by replacing the file, as editors do."""
    new = file.with_name(".new")
    new.write_text(text)
    new.chmod(0o644)
    new.rename(file)


class TestImages:
    """The images and their containers."""

    def test_one_model_runs_unprivileged_and_restarts(self, docker: Any, make_server: StartServer) -> None:
        server = make_server("docker")
        labels = json.loads(
            docker("inspect", "--format", "{{json .Config.Labels}}", server.variables["IMAGE_NAME"])
        )
        assert labels["org.opencontainers.image.version"] == "2"
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["org.opencontainers.image.revision"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", labels["org.opencontainers.image.created"])
        server.run()
        server.serves(2)
        assert server.states() == [["half", "2", "AVAILABLE"]]

        eventually(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", server.name), "healthy")
        status = server.script("run_tf_serving.sh", "status")
        assert status.stdout.splitlines()[0].endswith("models in the image, healthy")
        assert status.stderr == ""
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
        assert server.script("run_tf_serving.sh", "status").returncode == 1
        server.run()  # replaces the stopped container
        server.serves(2)

    def test_serves_many_models_by_version_and_label(
        self, docker: Any, images: dict[str, str], make_server: StartServer
    ) -> None:
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

    def test_stop_timeout_covers_the_drain(self, docker: Any, make_server: StartServer) -> None:
        server = make_server("docker", DRAIN_SECONDS="1")
        server.run()
        assert docker("inspect", "--format", "{{.Config.StopTimeout}}", server.name) == "16"
        docker("stop", server.name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", server.name) in STOPPED
        assert "stopping in 1 s" in docker.run("logs", server.name).stderr

    def test_a_second_stop_ends_the_drain(self, docker: Any, make_server: StartServer) -> None:
        server = make_server("docker", DRAIN_SECONDS="600")
        server.run()
        docker("kill", "--signal", "TERM", server.name)
        eventually(lambda: "stopping in 600 s" in docker.run("logs", server.name).stderr, True)
        stopped = server.script("run_tf_serving.sh", "stop")
        assert stopped.returncode == 0
        assert f"{server.name} is draining already; this stop ends the drain" in stopped.stderr

    def test_no_request_fails_during_an_update_and_a_rollback(
        self, docker: Any, base_image: str, models: Path, root: Path, make_server: StartServer
    ) -> None:
        server = make_server("docker", DRAIN_SECONDS="2")
        server.run()
        other = docker.name("single")
        builder = Server(root, "docker", {"TF_SERVING_IMAGE": base_image, "MODELS_DIR": str(models)})
        built = builder.script("build.sh", MODEL_NAME="half", MODEL_VERSIONS="1", IMAGE_NAME=other)
        assert built.returncode == 0, built.stderr
        host, _, port = server.grpc.rpartition(":")
        values: list[float] = []
        done = threading.Event()

        def call() -> None:
            with TfRpcClient(f"{server.grpc},{host}:{int(port) + 10}", "half") as client:
                while not done.is_set():
                    values.append(float(client.infer([4.0])["y"][0]))

        with ThreadPoolExecutor(1) as pool:
            calls = pool.submit(call)
            try:
                eventually(lambda: 4.0 in values, True)
                server.run("update", IMAGE_NAME=other)
                assert values[0] == 4.0
                assert server.states() == [["half", "1", "AVAILABLE"]]
                start = len(values)
                eventually(lambda: set(values[start:]), {3.0})
                server.run("rollback")
                assert server.states() == [["half", "2", "AVAILABLE"]]
                start = len(values)
                eventually(lambda: set(values[start:]), {4.0})
            finally:
                done.set()
            calls.result()
        server.serves(2)

    def test_rejects_a_gpu_for_an_image_without_cuda(self, make_server: StartServer) -> None:
        rejected = make_server("docker", GPU="0").script("run_tf_serving.sh")
        assert rejected.returncode == 2
        assert "has no CUDA; build it from the -gpu image: TF_SERVING_IMAGE=" in rejected.stderr

    def test_rejects_the_model_of_another_image(self, make_server: StartServer) -> None:
        rejected = make_server("docker", MODEL_NAME="other").script("run_tf_serving.sh")
        assert rejected.returncode == 2
        assert "contains model half, not other; build it: MODEL_NAME=other" in rejected.stderr


class TestServers:
    """Behaviour that both engines share."""

    def test_follows_added_and_removed_versions(
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
        eventually(lambda: server.over_rest(4.0), 3.0)
        server.serves(1)

    def test_a_polled_config_rolls_back_and_forward(
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
        eventually(lambda: server.over_rest(4.0), 4.0)

    def test_polls_a_config_outside_the_repository(
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

    def test_releases_change_the_server_that_the_script_started(
        self, engine: str, repository: Path, publish: Callable[[str], None], make_server: StartServer
    ) -> None:
        publish("half/2")
        server = make_server(engine, "multi", MODELS_DIR=str(repository))
        server.run()
        variables = {"MODELS_DIR": str(repository), "RUN_DIR": str(server.root / ".run"), "ENGINE": engine}

        def release(*words: str) -> None:
            command = [sys.executable, "-m", "tfserving", *words]
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
            assert f" on {server.name} ({server.grpc})" in done.stdout

        release("promote", "half", "1")
        server.serves(1)
        release("promote", "half", "2")
        server.serves(2)
        server.serves(2, label="stable")
        release("rollback", "half")
        server.serves(1)
        release("remove", "other")
        status = server.script("run_tf_serving.sh", "status")
        assert (status.returncode, status.stderr) == (0, "")
        assert "other" not in status.stdout
        if engine == "docker":
            # The health check does not expect the removed model.
            checked = subprocess.run(
                ["docker", "exec", server.name, "tfserving-healthcheck"], capture_output=True, text=True
            )
            assert checked.stdout == "healthy: half AVAILABLE\n"

    def test_two_servers_run_side_by_side(
        self, engine: str, repository: Path, make_server: StartServer
    ) -> None:
        first = make_server(engine, MODELS_DIR=str(repository))
        second = make_server(engine, "multi", MODELS_DIR=str(repository))
        first.run()
        second.run()
        first.serves(1)
        second.serves(1, model="other")
        first.run("stop")
        second.serves(1, model="other")
        assert first.script("run_tf_serving.sh", "status").returncode == 1

    def test_rejects_a_port_in_use(self, engine: str, repository: Path, make_server: StartServer) -> None:
        first = make_server(engine, MODELS_DIR=str(repository))
        first.run()
        second = make_server(engine, MODELS_DIR=str(repository))
        for name in ("GRPC_PORT", "REST_PORT"):
            rejected = second.script("run_tf_serving.sh", **{name: first.variables[name]})
            assert rejected.returncode == 2
            assert f"error: port {first.variables[name]} is in use by" in rejected.stderr
        first.serves(1)

    def test_rejects_a_name_in_use(self, engine: str, repository: Path, make_server: StartServer) -> None:
        server = make_server(engine, MODELS_DIR=str(repository))
        server.run()
        rejected = server.script("run_tf_serving.sh")
        assert rejected.returncode == 2
        assert (
            f"{server.name} is already running ({engine}, gRPC {server.grpc}, REST {server.rest})"
            in rejected.stderr
        )
        server.serves(1)

    def test_start_fails_with_an_invalid_model(
        self, engine: str, repository: Path, make_server: StartServer
    ) -> None:
        (repository / "half" / "1" / "saved_model.pb").write_bytes(b"\xff garbage")
        server = make_server(engine, MODELS_DIR=str(repository), START_TIMEOUT="30")
        failed = server.script("run_tf_serving.sh", "--", "--max_num_load_retries=0")
        assert failed.returncode == 1
        assert "its log is above" in failed.stderr
        assert "half" in failed.stderr
        assert "is not running" in server.script("run_tf_serving.sh", "status").stderr

    def test_start_fails_at_the_first_failed_load(
        self, engine: str, repository: Path, make_server: StartServer
    ) -> None:
        (repository / "half" / "1" / "saved_model.pb").write_bytes(b"\xff garbage")
        server = make_server(engine, MODELS_DIR=str(repository), START_TIMEOUT="600")
        failed = server.script("run_tf_serving.sh")
        assert failed.returncode == 1
        assert "error: half: version 1 failed to load: " in failed.stderr

    def test_passes_flags_to_the_server(
        self, engine: str, repository: Path, make_server: StartServer
    ) -> None:
        server = make_server(engine, MODELS_DIR=str(repository), ENABLE_MODEL_WARMUP="false")
        server.run("--", "--enable_model_warmup=true", "--grpc_max_threads=8")
        server.serves(1)
        rejected = make_server(engine, MODELS_DIR=str(repository)).script(
            "run_tf_serving.sh", "--", "--no_such=1"
        )
        assert rejected.returncode == 2
        assert "--no_such is not a flag of tensorflow_model_server" in rejected.stderr


class TestReplicas:
    """Several servers that the script treats as one."""

    def test_the_printed_addresses_reach_every_server(
        self, engine: str, repository: Path, make_server: StartServer
    ) -> None:
        server = make_server(engine, MODELS_DIR=str(repository), REPLICAS="2", **find_free_ports())
        addresses = server.run().strip()
        assert addresses.count(",") == 1
        for address in addresses.split(","):
            with TfRpcClient(address, "half") as client:
                assert float(client.infer([4.0])["y"][0]) == 3.0
        server.run("stop", CONTAINER_NAME=f"{server.name}-1")
        with TfRpcClient(addresses, "half") as client:
            assert [float(client.infer([4.0])["y"][0]) for _ in range(20)] == [3.0] * 20

    def test_no_call_fails_while_containers_are_replaced(self, docker: Any, make_server: StartServer) -> None:
        server = make_server("docker", REPLICAS="2", **find_free_ports())
        addresses = server.run().strip()
        stop, answers = threading.Event(), list[float]()

        def call_repeatedly() -> None:
            with TfRpcClient(addresses, "half") as client:
                while not stop.is_set():
                    answers.append(float(client.infer([4.0])["y"][0]))

        with ThreadPoolExecutor(4) as pool:
            callers = [pool.submit(call_repeatedly) for _ in range(4)]
            try:
                assert server.run("update", ENABLE_MODEL_WARMUP="false").strip() == addresses
                updated = len(answers)
                assert server.run("rollback").strip() == addresses
            finally:
                stop.set()
        assert [caller.exception() for caller in callers] == [None] * 4
        assert 0 < updated < len(answers)
        assert set(answers) == {4.0}


def test_the_embedded_server_stops_gracefully(repository: Path, root: Path, make_server: StartServer) -> None:
    server = make_server("embedded", MODELS_DIR=str(repository))
    server.run()
    process = int((root / ".run" / f"{server.name}.pid").read_text())
    server.run("stop")
    command = Path(f"/proc/{process}/cmdline")  # empty for a zombie
    assert not command.exists() or command.read_bytes() == b""
    assert "shutting down" in (root / ".run" / f"{server.name}.log").read_text()
