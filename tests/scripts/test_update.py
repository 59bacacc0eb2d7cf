"""update and rollback of run_tf_serving.sh: two containers, of which one serves at any time."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest


class Update:
    """A container of the image `one`, and an image `two` to update to."""

    def __init__(self, checkout: Any, ports: dict[str, str]) -> None:
        self.checkout = checkout
        self.ports = [int(port) for port in ports.values()]
        for image in ("one", "two"):
            checkout.add_image(image, mode="single", model_name="digits", models="digits:1")
        assert self("single", IMAGE_NAME="one", RESTART_POLICY="always", **ports).code == 0

    def __call__(self, *arguments: str, **variables: str) -> Any:
        return self.checkout.run("run_tf_serving.sh", *arguments, **variables)

    def containers(self) -> dict[str, tuple[str, str, str]]:
        """Image, state and gRPC address of each container."""
        return {
            name: (container["image"], container["status"], container["published"][0].rpartition(":")[2])
            for name, container in self.checkout.state["containers"].items()
        }


@pytest.fixture
def server(checkout: Any, ports: dict[str, str]) -> Update:
    return Update(checkout, ports)


def test_update_starts_the_new_container_before_it_stops_the_old_one(server: Update) -> None:
    result = server("update", IMAGE_NAME="two")
    assert (result.code, result.out) == (0, "")
    old, new = server.ports[0], server.ports[0] + 10
    assert f"serving: gRPC 127.0.0.1:{new}, REST http://127.0.0.1:{server.ports[1] + 10}/" in result.err
    assert f"stopping the previous container, gRPC 127.0.0.1:{old}" in result.err
    assert server.containers() == {
        "tfserving": ("two", "running", str(new)),
        "tfserving-previous": ("one", "exited", str(old)),
    }
    calls = [call[0] for call in server.checkout.calls() if call[0] in ("run", "rename", "stop")]
    assert calls == ["run", "run", "rename", "rename", "stop"]
    assert server("status").code == 0


def test_rollback_returns_to_the_old_container_and_its_ports(server: Update) -> None:
    server("update", IMAGE_NAME="two")
    result = server("rollback")
    assert result.code == 0, result.err
    old, new = server.ports[0], server.ports[0] + 10
    assert f"serving: gRPC 127.0.0.1:{old}," in result.err
    assert server.containers() == {
        "tfserving": ("one", "running", str(old)),
        "tfserving-previous": ("two", "exited", str(new)),
    }
    policies = {name: each["restart_policy"] for name, each in server.checkout.state["containers"].items()}
    assert policies == {"tfserving": "always", "tfserving-previous": "no"}
    assert server("restart").code == 0
    assert server.containers()["tfserving"] == ("one", "running", str(old))

    server("rollback")
    assert server.containers()["tfserving"] == ("two", "running", str(new))


def test_updates_alternate_between_two_pairs_of_ports(server: Update) -> None:
    server("update", IMAGE_NAME="two")
    assert server("update", IMAGE_NAME="one").code == 0
    old, new = server.ports[0], server.ports[0] + 10
    assert server.containers() == {
        "tfserving": ("one", "running", str(old)),
        "tfserving-previous": ("two", "exited", str(new)),
    }


def test_update_uses_the_ports_that_are_set(server: Update) -> None:
    ports = {"GRPC_PORT": str(server.ports[0] + 1), "REST_PORT": str(server.ports[1] + 1)}
    assert server("update", **ports).code == 0
    assert server.containers()["tfserving"] == ("one", "running", ports["GRPC_PORT"])


def test_a_failed_update_keeps_the_old_container(server: Update) -> None:
    server.checkout.change(run="dies")
    result = server("update", IMAGE_NAME="two")
    assert result.code == 1
    assert "the server exited" in result.err
    assert server.containers() == {"tfserving": ("one", "running", str(server.ports[0]))}
    assert server("status").code == 0


def test_an_interrupted_update_keeps_the_old_container(server: Update) -> None:
    server.checkout.serve({"digits": {"2": "LOADING"}})
    process = server.checkout.start("run_tf_serving.sh", "update", IMAGE_NAME="two")
    assert any("LOADING" in line for line in iter(process.stderr.readline, ""))
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert server.containers() == {"tfserving": ("one", "running", str(server.ports[0]))}


@pytest.mark.parametrize("action", ["update", "rollback"])
def test_a_concurrent_stop_leaves_nothing_running(server: Update, action: str) -> None:
    if action == "rollback":
        assert server("update", IMAGE_NAME="two").code == 0
    server.checkout.serve({"digits": {"1": "LOADING"}})
    running = server.checkout.start("run_tf_serving.sh", action)
    assert any("LOADING" in line for line in iter(running.stderr.readline, ""))
    assert server("stop").code == 0
    server.checkout.serve({})
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "error: tfserving was stopped meanwhile; its replacement is stopped as well" in err
    assert [state for _, state, _ in server.containers().values() if state == "running"] == []


def test_update_removes_the_container_of_a_killed_update(server: Update) -> None:
    labels = {"rest": "127.0.0.1:1", "grpc": "127.0.0.1:2"}
    server.checkout.add_container("tfserving-next", **labels)
    result = server("update", IMAGE_NAME="two")
    assert result.code == 0
    assert "removing container tfserving-next, which an interrupted update left" in result.err


def test_a_failed_rollback_keeps_the_present_container(server: Update) -> None:
    server("update", IMAGE_NAME="two")
    before = server.containers()
    server.checkout.serve({"digits": {"2": "LOADING"}})
    result = server("rollback", START_TIMEOUT="1")
    assert result.code == 1
    assert server.containers() == before


def test_stop_removes_the_previous_container(server: Update) -> None:
    server("update", IMAGE_NAME="two")
    assert server("stop").code == 0
    assert server.containers() == {}


def test_fails_without_a_container(server: Update) -> None:
    result = server("rollback")
    assert result.code == 1
    assert "tfserving has no stopped container tfserving-previous to roll back to" in result.err
    server("stop")
    result = server("update")
    assert result.code == 1
    assert "tfserving is not running; start it with bash run_tf_serving.sh restart" in result.err


@pytest.mark.parametrize("action", ["update", "rollback"])
def test_fails_without_permission_to_use_docker(server: Update, action: str) -> None:
    server.checkout.change(engine="denied")
    result = server(action)
    assert result.code == 1
    assert f"error: {action} needs docker, but docker info failed: " in result.err
    assert "add your user to the group docker" in result.err
    assert "ENGINE=embedded" not in result.err


@pytest.mark.parametrize("action", ["update", "rollback"])
def test_needs_docker(checkout: Any, ports: dict[str, str], action: str) -> None:
    checkout.add_version("digits", 1)
    assert checkout.run("run_tf_serving.sh", ENGINE="embedded", **ports).code == 0
    rejection = checkout.run("run_tf_serving.sh", action, ENGINE="embedded").rejection
    assert (
        f"{action} needs docker; the embedded server loads a version as soon as it is exported" in rejection
    )
