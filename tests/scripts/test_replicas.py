"""REPLICAS and REPLICAS_PER_GPU of run_tf_serving.sh: several servers that it treats as one."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import socket
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.conftest import free_port


class Replicas:
    """Runs the script with REPLICAS=2 on one engine."""

    def __init__(self, checkout: Any, engine: str) -> None:
        self.checkout = checkout
        self.grpc, self.rest = find_ports()
        self.variables = {
            "ENGINE": engine,
            "REPLICAS": "2",
            "GRPC_PORT": str(self.grpc),
            "REST_PORT": str(self.rest),
        }
        checkout.add_version("digits", 1)
        for image in ("tfserving-digits", "two"):
            checkout.add_image(image, mode="single", model_name="digits", models="digits:1")

    def __call__(self, *arguments: str, **variables: str) -> Any:
        return self.checkout.run("run_tf_serving.sh", *arguments, **variables)

    def start(self, **variables: str) -> Any:
        return self(**{**self.variables, **variables})

    def containers(self) -> dict[str, tuple[str, str, str]]:
        """Image, state and gRPC port of each container."""
        return {
            name: (container["image"], container["status"], container["published"][0].rpartition(":")[2])
            for name, container in self.checkout.state["containers"].items()
        }

    def leftovers(self) -> list[str]:
        """Containers and processes that still exist."""
        processes = [
            process for process in self.checkout.server_processes() if Path(f"/proc/{process}").exists()
        ]
        return [*self.checkout.state["containers"], *map(str, processes)]

    def addresses(self) -> str:
        return f"127.0.0.1:{self.grpc},127.0.0.1:{self.grpc + 2}"


def find_ports() -> tuple[int, int]:
    """Two ports; both and every second port after them are free."""
    while True:
        port = free_port()
        if port % 2 == 0 and all(map(is_free, range(port, port + 8))):
            return port, port + 1


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture(params=["docker", "embedded"])
def replicas(request: pytest.FixtureRequest, checkout: Any) -> Replicas:
    return Replicas(checkout, request.param)


@pytest.fixture
def containers(checkout: Any) -> Replicas:
    return Replicas(checkout, "docker")


def values_of(command: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(command) if name == option]


def test_one_command_starts_shows_and_stops_all(replicas: Replicas) -> None:
    started = replicas.start()
    assert (started.code, started.out) == (0, replicas.addresses() + "\n"), started.err
    assert len(replicas.leftovers()) == 2
    ports = [(replicas.grpc, replicas.rest), (replicas.grpc + 2, replicas.rest + 2)]
    for number, (grpc, rest) in enumerate(ports, 1):
        assert (
            f"tfserving-{number}: serving: gRPC 127.0.0.1:{grpc}, REST http://127.0.0.1:{rest}/"
            in started.err
        )

    status = replicas("status")
    assert status.code == 0, status.err
    lines = status.out.splitlines()
    assert lines[0] == (
        f"tfserving: 2 servers, gRPC {replicas.addresses()}, "
        f"REST 127.0.0.1:{replicas.rest},127.0.0.1:{replicas.rest + 2}"
    )
    assert [line.split(":")[0] for line in lines[1::2]] == ["tfserving-1", "tfserving-2"]
    assert [line.split() for line in lines[2::2]] == [["digits", "1", "AVAILABLE"]] * 2
    assert replicas("list").out.count(", replica of tfserving\n") == 2

    again = replicas.start()
    assert again.code == 2
    assert "tfserving-1 is already running" in again.err
    single = replicas(**{**replicas.variables, "REPLICAS": "", "GRPC_PORT": "1", "REST_PORT": "2"})
    assert single.code == 2
    assert "tfserving-1 is already running" in single.err

    assert replicas("stop").code == 0
    assert replicas.leftovers() == []
    assert "tfserving-2 is not running\n" in replicas("stop").err
    status = replicas("status")
    assert (status.code, status.out) == (1, "tfserving: 2 servers, gRPC none, REST none\n")


def test_restart_uses_the_settings_of_the_last_start(replicas: Replicas) -> None:
    assert replicas.start(ENABLE_MODEL_WARMUP="false").code == 0
    before = replicas.leftovers()
    result = replicas("restart")
    assert (result.code, result.out) == (0, replicas.addresses() + "\n"), result.err
    assert len(replicas.leftovers()) == len(before) == 2
    commands = replicas("restart", "--dry-run")
    assert commands.out.count("--enable_model_warmup=false") == 2

    assert replicas("restart", REPLICAS="1").out == f"127.0.0.1:{replicas.grpc}\n"
    assert len(replicas.leftovers()) == 1


def test_one_replica_can_be_restarted_alone(checkout: Any) -> None:
    replicas = Replicas(checkout, "embedded")
    assert replicas.start().code == 0
    assert replicas("stop", CONTAINER_NAME="tfserving-2").code == 0
    status = replicas("status")
    assert status.code == 1
    assert f"gRPC 127.0.0.1:{replicas.grpc}, REST" in status.out
    assert "tfserving-2 is not running\n" in status.err
    assert replicas("restart", CONTAINER_NAME="tfserving-2").code == 0
    assert replicas("status").out.startswith(f"tfserving: 2 servers, gRPC {replicas.addresses()},")


def test_nothing_starts_if_a_port_is_in_use(containers: Replicas) -> None:
    with closing(socket.create_server(("127.0.0.1", containers.rest + 2))):
        result = containers.start()
    assert result.code == 2
    assert f"port {containers.rest + 2} is in use by another program" in result.err
    assert containers.leftovers() == []
    assert containers.checkout.calls("run") == []


def test_a_failed_start_stops_all(replicas: Replicas) -> None:
    replicas.checkout.serve({"digits": {"1": "LOADING"}})
    result = replicas.start(START_TIMEOUT="1")
    assert (result.code, result.out) == (1, "")
    assert "error: not all servers started; the others were stopped" in result.err
    assert replicas.leftovers() == []
    assert "tfserving is not running" in replicas("stop").err


def test_a_server_that_started_is_stopped_if_another_one_fails(containers: Replicas) -> None:
    containers.checkout.add_container("other")
    state = containers.checkout.state
    state["containers"]["other"]["published"] = [f"127.0.0.1:{containers.grpc + 2}"]
    containers.checkout.state = state
    result = containers.start()
    assert result.code == 1
    assert "tfserving-2: error: docker run failed" in result.err
    assert containers.leftovers() == ["other"]


@pytest.mark.parametrize(("engine", "sent"), [("docker", signal.SIGINT), ("embedded", signal.SIGTERM)])
def test_an_interrupted_start_stops_all(checkout: Any, engine: str, sent: signal.Signals) -> None:
    replicas = Replicas(checkout, engine)
    checkout.serve({"digits": {"1": "LOADING"}})
    process = checkout.start("run_tf_serving.sh", **replicas.variables)
    for number in (1, 2):
        assert any("LOADING" in line for line in iter(process.stderr.readline, "")), number
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as Ctrl-C does
    else:
        os.kill(process.pid, sent)
    process.communicate(timeout=60)
    assert process.returncode == 128 + sent
    assert replicas.leftovers() == []


def test_logs_names_the_server_of_each_line(containers: Replicas) -> None:
    containers.checkout.let_server_log("loaded digits")
    assert containers.start().code == 0
    lines = containers("logs").out.splitlines()
    assert [line for line in lines if line.endswith("loaded digits")] == [
        "tfserving-1 | loaded digits",
        "tfserving-2 | loaded digits",
    ]


def test_logs_follows_all_servers(checkout: Any) -> None:
    replicas = Replicas(checkout, "embedded")
    assert replicas.start().code == 0
    process = checkout.start("run_tf_serving.sh", "logs", "--follow")
    logs = sorted(checkout.root.glob(".run/*.log"))
    for log in logs:
        with log.open("a") as file:
            file.write("more\n")
    timer = threading.Timer(60, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    lines = (line for line in iter(process.stdout.readline, "") if line.endswith("| more\n"))
    seen = {next(lines, ""), next(lines, "")}
    timer.cancel()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert seen == {"tfserving-1 | more\n", "tfserving-2 | more\n"}


class TestGpus:
    def start(self, checkout: Any, *arguments: str, **variables: str) -> list[list[str]]:
        """The commands of a dry run."""
        checkout.add_single_image("digits", "CUDA_VERSION=12")
        result = checkout.run("run_tf_serving.sh", *arguments, "--dry-run", ENGINE="docker", **variables)
        assert result.code == 0, result.err
        return [shlex.split(line) for line in result.out.splitlines()]

    def test_each_gpu_has_a_container_with_its_own_ports(self, checkout: Any) -> None:
        commands = self.start(checkout, GPU="0,2, 3", REPLICAS_PER_GPU="1")
        assert [values_of(command, "--gpus") for command in commands] == [
            ['"device=0"'],
            ['"device=2"'],
            ['"device=3"'],
        ]
        assert [values_of(command, "--publish") for command in commands] == [
            ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"],
            ["127.0.0.1:8502:8500", "127.0.0.1:8503:8501"],
            ["127.0.0.1:8504:8500", "127.0.0.1:8505:8501"],
        ]
        assert not any("memory_fraction" in word for command in commands for word in command)

    @pytest.mark.parametrize(("given", "fraction"), [("", "0.300"), ("0.2", "0.2")])
    def test_servers_of_one_gpu_share_its_memory(self, checkout: Any, given: str, fraction: str) -> None:
        commands = self.start(checkout, GPU="0,1", REPLICAS_PER_GPU="3", GPU_MEMORY_FRACTION=given)
        assert [values_of(command, "--gpus")[0][-2] for command in commands] == list("000111")
        assert [command[-1] for command in commands] == [f"--per_process_gpu_memory_fraction={fraction}"] * 6

    def test_the_embedded_server_sees_its_gpu_only(self, checkout: Any) -> None:
        replicas = Replicas(checkout, "embedded")
        variables = {**replicas.variables, "REPLICAS": "", "GPU": "4,5", "REPLICAS_PER_GPU": "1"}
        result = replicas("--dry-run", **variables)
        assert [line.split()[2] for line in result.out.splitlines()] == [
            "CUDA_VISIBLE_DEVICES=4",
            "CUDA_VISIBLE_DEVICES=5",
        ]

    @pytest.mark.parametrize("engine", ["docker", "embedded"])
    def test_no_server_starts_if_one_of_the_gpus_does_not_exist(self, checkout: Any, engine: str) -> None:
        replicas = Replicas(checkout, engine)
        checkout.add_single_image("digits", "CUDA_VERSION=12")
        checkout.add_gpus("NVIDIA H200")
        result = replicas.start(REPLICAS="", GPU="0,7", REPLICAS_PER_GPU="1")
        assert "GPU=0,7 names 7, which is not a GPU of this machine (found 0 NVIDIA H200)" in result.rejection
        assert checkout.calls("run") == []
        assert checkout.server_processes() == []

    def test_without_replicas_one_server_has_all_gpus(self, checkout: Any) -> None:
        (command,) = self.start(checkout, GPU="0,1")
        assert values_of(command, "--gpus") == ['"device=0,1"']


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"REPLICAS": "0"}, "REPLICAS=0 is not a valid number of servers (1-999)"),
        ({"REPLICAS_PER_GPU": "x"}, "REPLICAS_PER_GPU=x is not a valid number of servers (1-999)"),
        ({"REPLICAS_PER_GPU": "2"}, "REPLICAS_PER_GPU=2 needs a list of GPUs; set GPU, such as GPU=0,1"),
        ({"REPLICAS": "2", "GPU": "0"}, "REPLICAS=2 and GPU=0 are mutually exclusive"),
        ({"REPLICAS": "2", "REPLICAS_PER_GPU": "2", "GPU": "0"}, "are mutually exclusive"),
        ({"GPU": "0,1,0", "REPLICAS_PER_GPU": "1"}, "GPU=0,1,0 names 0 twice"),
        (
            {"GPU": "0", "REPLICAS_PER_GPU": "3", "GPU_MEMORY_FRACTION": "0.4"},
            "GPU_MEMORY_FRACTION=0.4 is too large for REPLICAS_PER_GPU=3: all servers of a GPU share its "
            "memory; set it to at most 0.333",
        ),
        (
            {"REPLICAS": "3", "GRPC_PORT": "8500", "REST_PORT": "8504"},
            "GRPC_PORT=8500 and REST_PORT=8504 overlap: 3 servers use every second port from each; set "
            "REST_PORT=8501",
        ),
        ({"REPLICAS": "3", "REST_PORT": "65533"}, "REST_PORT=65533 leaves too few ports for 3 servers"),
    ],
)
def test_rejects_invalid_settings(checkout: Any, variables: dict[str, str], message: str) -> None:
    assert message in checkout.run("run_tf_serving.sh", **variables).rejection


class TestUpdate:
    def test_update_and_rollback_replace_each_container_on_its_ports(self, containers: Replicas) -> None:
        assert containers.start(RESTART_POLICY="always").code == 0
        ports = [str(containers.grpc), str(containers.grpc + 2)]
        result = containers("update", IMAGE_NAME="two")
        assert (result.code, result.out) == (0, containers.addresses() + "\n"), result.err
        assert containers.containers() == {
            "tfserving-1": ("two", "running", ports[0]),
            "tfserving-1-previous": ("tfserving-digits", "exited", ports[0]),
            "tfserving-2": ("two", "running", ports[1]),
            "tfserving-2-previous": ("tfserving-digits", "exited", ports[1]),
        }
        changes = [call[0] for call in containers.checkout.calls() if call[0] in ("run", "stop")]
        assert changes == ["run", "run", "stop", "run", "stop", "run"]

        result = containers("rollback")
        assert (result.code, result.out) == (0, containers.addresses() + "\n"), result.err
        assert containers.containers() == {
            "tfserving-1": ("tfserving-digits", "running", ports[0]),
            "tfserving-1-previous": ("two", "exited", ports[0]),
            "tfserving-2": ("tfserving-digits", "running", ports[1]),
            "tfserving-2-previous": ("two", "exited", ports[1]),
        }
        policies = [each["restart_policy"] for each in containers.checkout.state["containers"].values()]
        assert sorted(policies) == ["always", "always", "no", "no"]
        assert containers("restart").code == 0
        assert containers.containers()["tfserving-1"][0] == "tfserving-digits"
        assert containers("stop").code == 0
        assert containers.containers() == {}

    def test_a_failed_update_returns_to_the_old_containers(self, containers: Replicas) -> None:
        assert containers.start().code == 0
        before = containers.containers()
        containers.checkout.change(run="fails tfserving-2")
        result = containers("update", IMAGE_NAME="two")
        assert result.code == 1
        assert "error: not all servers were replaced; they have their old containers again" in result.err
        assert containers.containers() == before
        assert containers("status").code == 0
        assert containers("rollback").code == 1

    def test_an_interrupted_update_returns_to_the_old_containers(self, containers: Replicas) -> None:
        assert containers.start().code == 0
        before = containers.containers()
        containers.checkout.serve({"digits": {"2": "LOADING"}})
        process = containers.checkout.start("run_tf_serving.sh", "update", IMAGE_NAME="two")
        assert any("LOADING" in line for line in iter(process.stderr.readline, ""))
        containers.checkout.serve({})
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert containers.containers() == before

    def test_a_failed_rollback_returns_to_the_present_containers(self, containers: Replicas) -> None:
        assert containers.start().code == 0
        assert containers("update", IMAGE_NAME="two").code == 0
        before = containers.containers()
        containers.checkout.serve({"digits": {"2": "LOADING"}})
        result = containers("rollback", START_TIMEOUT="1")
        assert result.code == 1
        assert containers.containers() == before

    def test_update_keeps_the_number_of_servers(self, containers: Replicas) -> None:
        assert containers.start().code == 0
        rejection = containers("update", REPLICAS="3").rejection
        assert "update keeps the number of servers, which is 2; use restart to change it" in rejection
