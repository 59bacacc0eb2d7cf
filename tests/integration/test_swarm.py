"""deploy/swarm/stack.sh on a real Swarm, while clients with their defaults call the servers.

The tests change one stack, in the order of this file. Each checks that no call fails while it does so, and
leaves two replicas of version 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ROOT, Docker, skip

pytestmark = pytest.mark.docker

DEADLINE = 90.0  # seconds; on a busy machine a server needs 20 s to start
NEW_SERVER_SECONDS = 30.0  # within which clients use a server that was added


class Stack:
    """The script with the settings of the test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/root"),
            "STACK": name,
            "UPDATE_MONITOR": "2",
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
    """The container of callers.py."""

    def __init__(self, docker: Docker, name: str) -> None:
        self._docker = docker
        self._name = name

    def report(self) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE
        while not (line := self._docker("logs", "--tail", "1", self._name)):
            assert time.monotonic() < deadline, f"no report within {DEADLINE} s"
            time.sleep(0.2)
        found: dict[str, Any] = json.loads(line)
        return found

    def calls(self, version: int) -> list[int]:
        """The number of calls that each client has made to a version."""
        return [client["versions"].get(str(version), 0) for client in self.report()["clients"].values()]

    def wait_until(self, condition: Callable[[dict[str, Any]], bool], seconds: float = DEADLINE) -> None:
        deadline = time.monotonic() + seconds
        while not condition(self.report()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.report()}"
            time.sleep(0.2)

    def wait_until_they_call(self) -> None:
        self.wait_until(lambda report: all(client["versions"] for client in report["clients"].values()))

    def wait_until_all_call(self, version: int) -> None:
        """Waits until all further calls go to a version."""
        deadline = time.monotonic() + DEADLINE
        others: list[int] = []
        while (now := self.calls(3 - version)) != others:
            assert time.monotonic() < deadline, f"another version still gets calls: {self.report()}"
            others = now
            self.check(version)

    def check(self, version: int) -> None:
        """Waits until each client has called the version 50 times more; no call has failed."""
        before = self.calls(version)
        self.wait_until(
            lambda report: all(now >= old + 50 for now, old in zip(self.calls(version), before, strict=True))
        )
        for name, client in self.report()["clients"].items():
            assert client["failed"] == 0, f"{name}: {client}"


@pytest.fixture(scope="module")
def swarm(docker: Docker) -> Iterator[None]:
    """A Swarm with this machine as its only node, unless it is a manager already."""
    if docker("info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive":
        created = docker.run("swarm", "init", "--advertise-addr", "127.0.0.1")
        if created.returncode != 0:
            skip(f"no Swarm: {created.stderr.strip()}")
        yield
        docker.run("swarm", "leave", "--force")
    elif docker("info", "--format", "{{.Swarm.ControlAvailable}}") == "true":
        yield
    else:
        skip("this machine is a worker of a Swarm")


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
def stack(docker: Docker, swarm: None, image: str) -> Iterator[Stack]:
    """Two replicas of version 1."""
    running = Stack(docker.prefix)
    try:
        assert "stable: 2 of 2 replicas run" in running("up", IMAGE_NAME=image)
        yield running
    finally:
        docker.remove(f"{docker.prefix}-callers")
        running.run("down")


@pytest.fixture(scope="module")
def client_image(docker: Docker, base_image: str) -> str:
    """An image with Python and gRPC: the one from which tests/integration/standin makes the base image."""
    image = f"{base_image}-embedded"
    if docker.run("image", "inspect", image).returncode != 0:
        skip(f"no image {image} with Python for the callers; tests/integration/standin/build.sh builds one")
    return image


@pytest.fixture(scope="module")
def callers(docker: Docker, stack: Stack, client_image: str) -> Callers:
    """Callers of the group stable, which know only its name."""
    name = f"{docker.prefix}-callers"
    docker(
        *("run", "--detach", "--name", name, "--network", f"{stack.name}-servers", "--entrypoint", "python3"),
        *("--volume", f"{ROOT}:/checkout:ro", "--workdir", "/checkout", "--env", "PYTHONPATH=/checkout"),
        *(client_image, "-m", "tests.integration.callers", "stable:8500", "half"),
    )
    found = Callers(docker, name)
    found.wait_until_they_call()
    return found


def task_containers(docker: Docker, stack: Stack) -> list[str]:
    return docker(
        "ps", "--quiet", "--filter", f"label=com.docker.swarm.service.name={stack.name}_stable"
    ).split()


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


def test_status_reports_the_replicas(stack: Stack, image: str) -> None:
    assert f"stable: 2 of 2 replicas run {image}\n" in stack("status")


def test_new_replicas_get_calls_within_30_seconds(stack: Stack, callers: Callers) -> None:
    callers.check(version=1)
    assert len(callers.report()["servers"]) == 2
    assert "stable: 3 of 3 replicas run" in stack("up", REPLICAS="3")
    callers.wait_until(lambda report: len(report["servers"]) == 3, NEW_SERVER_SECONDS)
    callers.check(version=1)


def test_no_call_fails_when_replicas_are_removed(stack: Stack, callers: Callers) -> None:
    assert "stable: 2 of 2 replicas run" in stack("up", REPLICAS="2")
    callers.wait_until(lambda report: len(report["servers"]) == 2)
    callers.check(version=1)


def test_no_call_fails_when_a_replica_is_killed(docker: Docker, stack: Stack, callers: Callers) -> None:
    killed = task_containers(docker, stack)[0]
    docker("kill", "--signal", "KILL", killed)
    callers.check(version=1)
    callers.wait_until(
        lambda _: stack.run("status").returncode == 0 and killed not in task_containers(docker, stack)
    )
    callers.wait_until(lambda report: len(report["servers"]) == 2, NEW_SERVER_SECONDS)
    callers.check(version=1)


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
