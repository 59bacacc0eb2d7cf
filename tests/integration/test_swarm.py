"""deploy/swarm/stack.sh on a real Swarm, while clients with their defaults call the servers.

The clients call the servers directly and through two gateways. The tests change one stack, in the order of
this file. Each checks that no call fails while it does so, and leaves two replicas of version 1.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ROOT, Docker, skip
from tests.server.certificates import certificate
from tfserving.gateway.client_tokens import add_token

pytestmark = pytest.mark.docker

DEADLINE = 90.0  # seconds; on a busy machine a server needs 20 s to start
NEW_SERVER_SECONDS = 30.0  # within which clients use a server that was added


class Stack:
    """The script with the settings of the test."""

    def __init__(self, name: str, **settings: str) -> None:
        self.name = name
        self._environment = settings | {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/root"),
            "STACK": name,
            "UPDATE_MONITOR": "1",
            "DRAIN_SECONDS": "1",
            "HEALTHCHECK_INTERVAL": "1",
            "START_TIMEOUT": f"{DEADLINE:.0f}",
        }

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(ROOT / "deploy/swarm/stack.sh"), *arguments],
            env=self._environment | variables,
            capture_output=True,
            text=True,
            timeout=DEADLINE + 60,
        )

    def __call__(self, *arguments: str, **variables: str) -> str:
        """Returns the output; raises AssertionError if the script fails."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


class Callers:
    """The containers of callers.py: callers of the servers, and callers of the gateways."""

    def __init__(self, docker: Docker, names: dict[str, str]) -> None:
        self._docker = docker
        self.names = names

    def report(self, kind: str = "direct") -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE
        while not (line := self._docker("logs", "--tail", "1", self.names[kind])):
            assert time.monotonic() < deadline, f"no report within {DEADLINE} s"
            time.sleep(0.2)
        found: dict[str, Any] = json.loads(line)
        return found

    def clients(self) -> dict[str, dict[str, Any]]:
        """What each client of each container reports."""
        return {
            f"{kind}, {name}": client
            for kind in self.names
            for name, client in self.report(kind)["clients"].items()
        }

    def calls(self, version: int) -> list[int]:
        """The number of calls that each client has made to a version."""
        return [client["versions"].get(str(version), 0) for client in self.clients().values()]

    def wait_until(self, condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.clients()}"
            time.sleep(0.2)

    def wait_until_connected(self, servers: int, kind: str = "direct") -> None:
        """Waits until the callers of one kind have connections to this many servers."""
        self.wait_until(lambda: len(self.report(kind)["servers"]) == servers, NEW_SERVER_SECONDS)

    def wait_until_they_call(self) -> None:
        self.wait_until(lambda: all(client["versions"] for client in self.clients().values()))

    def wait_until_all_call(self, version: int) -> None:
        """Waits until all further calls go to a version."""
        deadline = time.monotonic() + DEADLINE
        others: list[int] = []
        while (now := self.calls(3 - version)) != others:
            assert time.monotonic() < deadline, f"another version still gets calls: {self.clients()}"
            others = now
            self.check(version)

    def check(self, version: int) -> None:
        """Waits until each client has called the version 50 times more; no call has failed."""
        before = self.calls(version)
        self.wait_until(
            lambda: all(now >= old + 50 for now, old in zip(self.calls(version), before, strict=True))
        )
        for name, client in self.clients().items():
            assert client["failed"] == 0, f"{name}: {client}"


@pytest.fixture(scope="module")
def swarm(docker: Docker) -> Iterator[None]:
    """A Swarm with this machine as its only node, unless it is a manager already."""
    is_new = docker("info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive"
    if is_new:
        created = docker.run("swarm", "init", "--advertise-addr", "127.0.0.1")
        if created.returncode != 0:
            skip(f"no Swarm: {created.stderr.strip()}")
    elif docker("info", "--format", "{{.Swarm.ControlAvailable}}") == "false":
        skip("this machine is a worker of a Swarm")
    yield
    if is_new:
        docker("swarm", "leave", "--force")
    # stopped tasks keep their volumes in use
    docker.remove(
        *docker("ps", "--all", "--quiet", "--filter", f"name=^{docker.prefix}.*_prometheus").split()
    )
    for volume in docker("volume", "ls", "--quiet", "--filter", f"name={docker.prefix}").split():
        docker("volume", "rm", volume)


@pytest.fixture(scope="module")
def build(docker: Docker, base_image: str, models: Path) -> Callable[[int], str]:
    """Builds an image with one version of the model."""

    def build_version(version: int) -> str:
        image = f"{docker.name('image')}:{version}"
        variables = {"MODELS_DIR": str(models), "MODEL_NAME": "half", "MODEL_VERSIONS": str(version)}
        subprocess.run(
            ["bash", str(ROOT / "build.sh")],
            env=os.environ | variables | {"IMAGE_NAME": image, "TF_SERVING_IMAGE": base_image},
            check=True,
            capture_output=True,
            timeout=600,
        )
        return image

    return build_version


@pytest.fixture(scope="module")
def image(build: Callable[[int], str]) -> str:
    """An image with version 1."""
    return build(1)


@pytest.fixture(scope="module")
def envoy_image(docker: Docker) -> str:
    """TFSERVING_TEST_ENVOY_IMAGE, else the default of the script."""
    return os.environ.get("TFSERVING_TEST_ENVOY_IMAGE") or pull_default(docker, "GATEWAY_IMAGE")


@pytest.fixture(scope="module")
def prometheus_image(docker: Docker, client_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with the Prometheus of this machine, else the default of the script."""
    binary = shutil.which("prometheus")
    if binary is None:
        return pull_default(docker, "PROMETHEUS_IMAGE")
    context = tmp_path_factory.mktemp("prometheus")
    shutil.copy(binary, context)
    (context / "Dockerfile").write_text(
        f"FROM {client_image}\nCOPY prometheus /bin/\n"
        # the official image has this directory, which the user of the stack owns
        'RUN mkdir /prometheus && chown 65534:65534 /prometheus\nENTRYPOINT ["/bin/prometheus"]\n'
    )
    image = docker.name("image")
    docker("build", "--tag", image, context)
    return image


def pull_default(docker: Docker, variable: str) -> str:
    script = (ROOT / "deploy/swarm/stack.sh").read_text()
    (image,) = re.findall(rf"^  setting {variable} (.+)$", script, re.M)
    pull = docker.run("pull", "--quiet", image, timeout=600)
    if pull.returncode != 0:
        skip(f"no image {image}: {pull.stderr.strip()}")
    return str(image)


@pytest.fixture(scope="module")
def client_image(docker: Docker, base_image: str) -> str:
    """An image with Python and gRPC: the one from which tests/integration/standin makes the base image."""
    image = f"{base_image}-embedded"
    if docker.run("image", "inspect", image).returncode != 0:
        skip(f"no image {image} with Python for the callers; tests/integration/standin/build.sh builds one")
    return image


@pytest.fixture(scope="module")
def gateway_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directories gateway and gateway-tls, and a token."""
    directory = tmp_path_factory.mktemp("gateway-files")
    shutil.copytree(ROOT / "deploy/gateway/dynamic", directory / "gateway")
    (directory / "token").write_text(add_token(directory / "gateway", "callers")[1])
    (directory / "gateway-tls").mkdir()
    for name, text in zip(("tls.crt", "tls.key"), certificate("gateway"), strict=True):
        (directory / "gateway-tls" / name).write_text(text)
    return directory


@pytest.fixture(scope="module")
def stack(
    docker: Docker,
    swarm: None,
    image: str,
    envoy_image: str,
    prometheus_image: str,
    gateway_files: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """Two replicas of version 1 behind two gateways, and Prometheus."""
    running = Stack(
        docker.prefix,
        MODEL_NAME="half",
        GATEWAY_DIR=str(gateway_files / "gateway"),
        GATEWAY_IMAGE=envoy_image,
        MONITORING="1",
        PROMETHEUS_IMAGE=prometheus_image,
        RUN_DIR=str(tmp_path_factory.mktemp("run")),
    )
    try:
        started = running("up", IMAGE_NAME=image)
        assert "stable: 2 of 2 replicas run" in started
        assert "gateway: 2 of 2 replicas run" in started
        assert "prometheus: 1 of 1 replicas run" in started
        yield running
    finally:
        docker.remove(*(f"{docker.prefix}-{kind}-callers" for kind in ("direct", "gateway")))
        running.run("down")


@pytest.fixture(scope="module")
def callers(docker: Docker, stack: Stack, client_image: str, gateway_files: Path) -> Callers:
    """Callers that know only the names stable and gateway."""
    names = {kind: f"{docker.prefix}-{kind}-callers" for kind in ("direct", "gateway")}
    arguments = {
        "direct": ["stable:8500", "half"],
        "gateway": ["gateway:8443", "half", "/gateway/gateway-tls/tls.crt", "/gateway/token"],
    }
    for kind, name in names.items():
        docker(
            *("run", "--detach", "--name", name, "--network", f"{stack.name}-servers"),
            *("--volume", f"{ROOT}:/checkout:ro", "--volume", f"{gateway_files}:/gateway:ro"),
            *("--workdir", "/checkout", "--env", "PYTHONPATH=/checkout", "--entrypoint", "python3"),
            *(client_image, "-m", "tests.integration.callers", *arguments[kind]),
        )
    found = Callers(docker, names)
    found.wait_until_they_call()
    return found


def task_containers(docker: Docker, stack: Stack, service: str = "stable") -> list[str]:
    label = f"com.docker.swarm.service.name={stack.name}_{service}"
    return docker("ps", "--quiet", "--filter", f"label={label}").split()


def test_runs_without_privileges(docker: Docker, stack: Stack) -> None:
    container = task_containers(docker, stack)[0]
    host = json.loads(docker("inspect", "--format", "{{json .HostConfig}}", container))
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] in (["ALL"], ["CAP_ALL"])
    assert host["PidsLimit"] == 4096
    assert host["PortBindings"] in (None, {})
    status = docker("exec", container, "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert "Uid:\t65532" in status


def test_docker_accepts_all_files_of_the_stack(docker: Docker, stack: Stack, tmp_path: Path) -> None:
    """The files that the stack of the other tests does not use, in a second stack without servers."""
    name = f"{stack.name}-2"
    # a dry run does not write this file
    shutil.copy(ROOT / "deploy/gateway/envoy.yaml", tmp_path / f"{name}-gateway.yaml")
    variables = {"STACK": name, "REPLICAS": "0", "RUN_DIR": str(tmp_path)}
    variables |= {"MODELS_DIR": "/srv/models", "GPUS": "1", "MEMORY": "1g"}
    flags = ("--", "--grpc_channel_arguments=a b=1")
    command = stack.run("up", "--dry-run", *flags, **variables, GATEWAY_PORT="28443", CPUS="1.5").stdout
    try:
        deployed = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=60)
        assert deployed.returncode == 0, deployed.stderr
        servers, gateways = (
            json.loads(docker("service", "inspect", "--format", "{{json .Spec}}", f"{name}_{service}"))
            for service in ("stable", "gateway")
        )
    finally:
        docker.run("stack", "rm", name)
    template = servers["TaskTemplate"]
    assert template["ContainerSpec"]["Args"][-1] == "--grpc_channel_arguments=a b=1"
    (mount,) = template["ContainerSpec"]["Mounts"]
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == ("/srv/models", "/models", True)
    limits = template["Resources"]["Limits"]
    assert limits == {"NanoCPUs": 1_500_000_000, "MemoryBytes": 1 << 30, "Pids": 4096}
    (gpu,) = template["Resources"]["Reservations"]["GenericResources"]
    assert gpu["DiscreteResourceSpec"] == {"Kind": "NVIDIA-GPU", "Value": 1}
    assert servers["UpdateConfig"]["Order"] == "start-first"
    assert servers["UpdateConfig"]["FailureAction"] == "rollback"
    (port,) = gateways["EndpointSpec"]["Ports"]
    assert (port["TargetPort"], port["PublishedPort"], port["PublishMode"]) == (8443, 28443, "host")
    assert gateways["TaskTemplate"]["Placement"]["MaxReplicas"] == 1
    assert gateways["UpdateConfig"]["Order"] == "stop-first"
    assert gateways["UpdateConfig"]["FailureAction"] == "rollback"


def test_status_reports_the_replicas(stack: Stack, image: str) -> None:
    assert f"stable: 2 of 2 replicas run {image}\n" in stack("status")


def test_new_replicas_get_calls_within_30_seconds(stack: Stack, callers: Callers) -> None:
    callers.check(version=1)
    callers.wait_until_connected(servers=2)
    assert "stable: 3 of 3 replicas run" in stack("up", REPLICAS="3")
    callers.wait_until_connected(servers=3)
    callers.check(version=1)


def test_no_call_fails_when_replicas_are_removed(stack: Stack, callers: Callers) -> None:
    assert "stable: 2 of 2 replicas run" in stack("up", REPLICAS="2")
    callers.wait_until_connected(servers=2)
    callers.check(version=1)


def test_no_call_fails_when_a_replica_is_killed(docker: Docker, stack: Stack, callers: Callers) -> None:
    killed = task_containers(docker, stack)[0]
    docker("kill", "--signal", "KILL", killed)
    callers.check(version=1)
    callers.wait_until(lambda: stack.run("status").returncode == 0)
    callers.wait_until_connected(servers=2)
    callers.check(version=1)


def test_no_call_fails_when_a_gateway_is_killed(docker: Docker, stack: Stack, callers: Callers) -> None:
    callers.wait_until_connected(servers=2, kind="gateway")
    docker("kill", "--signal", "KILL", task_containers(docker, stack, "gateway")[0])
    callers.check(version=1)
    callers.wait_until(lambda: len(task_containers(docker, stack, "gateway")) == 2)
    callers.wait_until_connected(servers=2, kind="gateway")
    callers.check(version=1)


def test_prometheus_scrapes_servers_and_gateways(docker: Docker, stack: Stack, callers: Callers) -> None:
    query = urllib.parse.quote("count by (job) (up == 1)")
    url = f"http://prometheus:9090/api/v1/query?query={query}"
    script = f"from urllib import request; print(request.urlopen({url!r}, timeout=10).read().decode())"

    def are_scraped() -> bool:
        found = json.loads(docker("exec", callers.names["direct"], "python3", "-c", script))
        jobs = {one["metric"]["job"]: int(one["value"][1]) for one in found["data"]["result"]}
        return jobs == {"prometheus": 1, "serving": 2, "gateway": 2}

    callers.wait_until(are_scraped)


def test_no_call_fails_when_a_broken_image_is_rolled_back(
    docker: Docker, stack: Stack, callers: Callers, image: str
) -> None:
    broken = docker.name("image")
    subprocess.run(
        ["docker", "build", "--tag", broken, "-"],
        input=f"FROM {image}\nENV MODE=nonsense\n",
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    update = stack.run("update", IMAGE_NAME=broken)
    assert update.returncode == 1
    assert "error: MODE=nonsense is not a valid mode" in update.stderr
    assert "stable: the update failed and was rolled back after" in update.stderr
    assert f"all servers run {image}" in update.stderr
    callers.check(version=1)
    assert f"stable: 2 of 2 replicas run {image} (rollback completed)" in stack("status")
    again = stack.run("rollback")
    assert (again.returncode, "stable has no earlier state" in again.stderr) == (1, True)


def test_no_call_fails_during_an_update_and_a_rollback(
    stack: Stack, callers: Callers, image: str, build: Callable[[int], str]
) -> None:
    newer = build(2)
    assert f"stable: 2 of 2 replicas run {newer}" in stack("update", IMAGE_NAME=newer)
    callers.check(version=2)
    callers.wait_until_all_call(version=2)  # the last server of the old version may still drain
    assert f"stable: 2 of 2 replicas run {image}" in stack("rollback")
    callers.check(version=1)
