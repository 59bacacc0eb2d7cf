"""run_tf_serving.sh from start to stop on both engines, with a fake docker and a fake embedded server."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

LOAD_RETRIES = ("--max_num_load_retries=5", "--load_retry_interval_micros=10000000")


class Server:
    """Runs the script with the variables of one server on one engine."""

    def __init__(self, checkout: Any, engine: str, ports: dict[str, str]) -> None:
        self.checkout = checkout
        self.engine = engine
        self.ports = ports
        self.variables = {"ENGINE": engine, **ports}
        checkout.add_version("digits", 1)
        checkout.add_version("half", 1, 2)
        checkout.add_config()
        checkout.add_single_image()
        checkout.add_multi_model_image()

    def __call__(self, *arguments: str, **variables: str) -> Any:
        return self.checkout.run("run_tf_serving.sh", *arguments, **{**self.variables, **variables})

    def leftovers(self) -> list[str]:
        """Containers and processes that still exist."""
        processes = [
            process for process in self.checkout.server_processes() if Path(f"/proc/{process}").exists()
        ]
        return [*self.checkout.state["containers"], *map(str, processes)]


@pytest.fixture(params=["docker", "embedded"])
def server(request: pytest.FixtureRequest, checkout: Any, ports: dict[str, str]) -> Server:
    return Server(checkout, request.param, ports)


def test_a_server_starts_once_shows_its_status_and_stops(server: Server) -> None:
    grpc, rest = server.ports.values()
    started = server()
    assert (started.code, started.out) == (0, "")
    assert f"serving: gRPC 127.0.0.1:{grpc}, REST http://127.0.0.1:{rest}/v1/models/" in started.err
    assert len(server.leftovers()) == 1

    again = server()
    where = f"{server.engine}, gRPC 127.0.0.1:{grpc}, REST 127.0.0.1:{rest}"
    assert f"tfserving is already running ({where})" in again.rejection

    status = server("status")
    assert status.code == 0, status.err
    head, *rows = status.out.splitlines()
    assert head.startswith(f"tfserving: {where}")
    assert [row.split() for row in rows] == [["digits", "1", "AVAILABLE"]]

    stopped = server("stop")
    assert (stopped.code, stopped.out) == (0, "")
    assert stopped.err == "run_tf_serving.sh: stopped tfserving\n"
    assert server.leftovers() == []
    assert server("status").code == 1


def test_status_lists_every_version_of_a_multi_model_server(server: Server) -> None:
    server.checkout.serve({"half": {"2": "AVAILABLE", "1": "END"}})
    assert server("multi").code == 0
    rows = server("status").out.splitlines()[1:]
    assert [row.split() for row in rows] == [
        ["digits", "1", "AVAILABLE"],
        ["half", "2", "AVAILABLE"],
        ["half", "1", "END"],
    ]


def test_stop_and_status_find_the_engine(server: Server) -> None:
    server()
    assert server("status", ENGINE="").code == 0
    assert server("stop", ENGINE="").code == 0
    assert server.leftovers() == []


def test_status_reads_a_mounted_config(server: Server) -> None:
    path = "/models/models.config"
    inside = server.checkout.world / "files" / path[1:]
    inside.parent.mkdir(parents=True)
    inside.write_text((server.checkout.models / "models.config").read_text())
    assert server("multi", MODELS_DIR="models").code == 0
    assert len(server("status").out.splitlines()) == 3


def test_status_fails_unless_every_model_is_available(server: Server) -> None:
    server()
    server.checkout.serve({"digits": {"2": "LOADING", "1": "END"}})
    status = server("status")
    assert status.code == 1
    rows = [row.split() for row in status.out.splitlines()[1:]]
    assert rows == [["digits", "2", "LOADING"], ["digits", "1", "END"]]
    server.checkout.serve({"digits": {}})
    status = server("status")
    assert status.code == 1
    assert status.out.splitlines()[1].split() == ["digits", "-", "no", "response"]


def test_waits_until_every_model_is_available(server: Server) -> None:
    server.checkout.serve({"half": {"1": "LOADING"}})
    process = server.checkout.start("run_tf_serving.sh", "multi", **server.variables)
    lines = iter(process.stderr.readline, "")
    assert any("waiting for half: version 1 LOADING" in line for line in lines)
    assert process.poll() is None
    server.checkout.serve({})
    assert any("serving: gRPC" in line for line in lines)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_start_fails_if_the_server_exits(server: Server) -> None:
    server.checkout.change(run="dies")
    server.checkout.let_server("dies")
    result = server()
    assert result.code == 1
    assert "the server" in result.err
    assert "logged" in result.err
    assert result.err.endswith("error: the server exited; its log is above\n")
    assert server.leftovers() == []


def test_start_fails_after_its_timeout(server: Server) -> None:
    server.checkout.serve({"digits": {"1": "LOADING"}})
    result = server(START_TIMEOUT="3")
    assert result.code == 1
    assert "error: not AVAILABLE within START_TIMEOUT=3 s; digits: version 1 LOADING; its log" in result.err
    assert server.leftovers() == []


@pytest.mark.parametrize("behaviour", ["works", "dies"])
def test_start_fails_as_soon_as_a_version_failed_to_load(server: Server, behaviour: str) -> None:
    server.checkout.serve({"digits": {"1": "LOADING"}})
    server.checkout.change(run=behaviour)
    server.checkout.let_server(behaviour)
    server.checkout.let_server_log(
        "E] Loading servable: {name: digits version: 1} failed: NOT_FOUND: no file\n"
    )
    result = server(START_TIMEOUT="600")
    assert result.code == 1
    assert result.err.endswith(
        "error: digits: version 1 failed to load: NOT_FOUND: no file; export the version again or remove it; "
        "its log is above\n"
    )
    assert server.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_stops_the_server(server: Server, number: int) -> None:
    server.checkout.serve({"digits": {"1": "LOADING"}})
    process = server.checkout.start("run_tf_serving.sh", **server.variables)
    assert any("LOADING" in line for line in iter(process.stderr.readline, ""))
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert server.leftovers() == []


def test_two_servers_run_side_by_side(server: Server) -> None:
    other_ports = {name: str(int(port) + 1) for name, port in server.ports.items()}
    assert server().code == 0
    assert server(CONTAINER_NAME="second", **other_ports).code == 0
    assert len(server.leftovers()) == 2
    assert server("stop").code == 0
    assert server("status", CONTAINER_NAME="second").code == 0
    assert "set CONTAINER_NAME to one of second" in server("status").err
    assert server("stop", CONTAINER_NAME="second").code == 0
    assert server.leftovers() == []


def test_stop_succeeds_without_a_server(server: Server) -> None:
    result = server("stop")
    assert (result.code, result.out) == (0, "")
    assert "tfserving is not running" in result.err


class TestDocker:
    @pytest.fixture
    def server(self, checkout: Any, ports: dict[str, str]) -> Server:
        return Server(checkout, "docker", ports)

    @pytest.mark.parametrize("status", ["exited", "created", "dead"])
    def test_replaces_a_stopped_container(self, server: Server, status: str) -> None:
        server.checkout.add_container("tfserving", status, rest="127.0.0.1:1", grpc="127.0.0.1:2")
        assert "image absent is not available" in server(IMAGE_NAME="absent").rejection
        assert server.checkout.calls("rm") == []  # its log can still be read
        result = server()
        assert result.code == 0
        assert "replacing container tfserving, which has stopped" in result.err
        assert server.checkout.calls("rm") == [["rm", "--force", "tfserving"]]

    def test_start_fails_if_docker_run_fails(self, server: Server) -> None:
        server.checkout.change(run="fails")
        result = server()
        assert result.code == 1
        assert "driver failed programming" in result.err
        assert "error: docker run failed; its output is above" in result.err
        assert server.leftovers() == []

    def test_serves_the_model_of_the_image(self, server: Server) -> None:
        server.checkout.add_image("mine", mode="single", model_name="flowers", models="flowers:1")
        server.checkout.serve({"digits": {}})
        assert server(IMAGE_NAME="mine").code == 0
        assert server("status").out.splitlines()[1].split()[0] == "flowers"

    def test_does_not_stop_a_container_of_another_program(self, server: Server) -> None:
        server.checkout.add_container("tfserving")
        assert "tfserving is not running" in server("stop").err
        assert server.checkout.calls("stop") == server.checkout.calls("rm") == []

    def test_an_interrupted_stop_says_that_another_one_ends_the_drain(self, server: Server) -> None:
        assert server().code == 0
        server.checkout.change(stop="drains")
        process = server.checkout.start("run_tf_serving.sh", "stop", **server.variables)
        while not (server.checkout.world / "draining").exists():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "interrupted: tfserving has received the stop signal and exits when its drain is over" in err
        assert "another stop ends the drain immediately" in err

        again = server("stop")
        assert again.code == 0
        assert (
            "tfserving is draining already; this stop ends the drain, and requests in flight fail"
            in again.err
        )
        assert server.leftovers() == []

    @pytest.mark.parametrize(("seconds", "noted"), [("0", False), ("1", True), ("8", True), ("9", False)])
    def test_notes_a_drain_that_ends_before_docker_reports_it(
        self, server: Server, seconds: str, noted: bool
    ) -> None:
        err = server("--dry-run", DRAIN_SECONDS=seconds).err
        text = f"note: DRAIN_SECONDS={seconds} ends before Docker reports the container unhealthy"
        assert (text in err) is noted

    def test_status_names_the_log_of_a_stopped_container(self, server: Server) -> None:
        server.checkout.add_container("tfserving", "exited", rest="127.0.0.1:1")
        result = server("status")
        assert (result.code, result.out) == (1, "")
        assert "tfserving has stopped; its log: docker logs --follow tfserving" in result.err


class TestEmbedded:
    @pytest.fixture
    def server(self, checkout: Any, ports: dict[str, str]) -> Server:
        return Server(checkout, "embedded", ports)

    def test_one_model_is_served_by_name_and_base_path(self, server: Server) -> None:
        checkout = server.checkout
        command = checkout.run("run_tf_serving.sh", "--dry-run", ENGINE="embedded").command
        environment, python, *rest = command[:2], command[2], *command[3:]
        assert environment == ["env", f"PYTHONPATH={checkout.root}:{checkout.stubs}"]
        assert Path(python).name.startswith("python")
        assert rest == [
            *("-m", "tfserving.server", "--host=127.0.0.1", "--port=8500", "--rest_api_port=8501"),
            *(f"--models_dir={checkout.models}", *LOAD_RETRIES),
            *("--model_name=digits", "--model_base_path=/models/digits"),
        ]

    def test_many_models_are_served_by_config_and_settings_become_flags(self, server: Server) -> None:
        checkout = server.checkout
        command = checkout.run(
            "run_tf_serving.sh",
            *("multi", "--dry-run", "--", "--enable_model_warmup=true"),
            ENGINE="embedded",
            MODEL_CONFIG_FILE_POLL_WAIT_SECONDS="2",
            ENABLE_MODEL_WARMUP="false",
            GPU="1",
            GPU_MEMORY_FRACTION="0.3",
        ).command
        assert command[2] == "CUDA_VISIBLE_DEVICES=1"
        assert command[-9:] == [
            f"--models_dir={checkout.models}",
            *LOAD_RETRIES,
            f"--model_config_file={checkout.models}/models.config",
            "--allow_version_labels_for_unavailable_models=true",
            "--model_config_file_poll_wait_seconds=2",
            "--enable_model_warmup=false",
            "--per_process_gpu_memory_fraction=0.3",
            "--enable_model_warmup=true",
        ]

    def test_files_become_flags_with_absolute_paths(self, server: Server) -> None:
        names = ("BATCHING_PARAMETERS_FILE", "MONITORING_CONFIG_FILE", "SSL_CONFIG_FILE")
        for name in names:
            (server.checkout.root / f"{name} x").touch()
        root = server.checkout.root
        assert server("--dry-run", **{name: f"{name} x" for name in names}).command[-4:] == [
            "--enable_batching=true",
            f"--batching_parameters_file={root}/BATCHING_PARAMETERS_FILE x",
            f"--monitoring_config_file={root}/MONITORING_CONFIG_FILE x",
            f"--ssl_config_file={root}/SSL_CONFIG_FILE x",
        ]

    def test_the_server_receives_flags_and_environment(self, server: Server) -> None:
        flag = "--grpc_channel_arguments=b c;'d'"
        assert server("--", flag, GPU="0,1").code == 0
        served = server.checkout.served()
        assert served["argv"][-1] == flag
        assert served["environment"] == {"CUDA_VISIBLE_DEVICES": "0,1"}

    def test_the_server_survives_the_end_of_its_terminal(self, server: Server) -> None:
        server()
        (process,) = server.checkout.server_processes()
        assert os.getpgid(process) == process
        os.kill(process, signal.SIGHUP)
        assert server("status").code == 0

    def test_kills_a_server_that_ignores_sigterm(self, server: Server) -> None:
        server.checkout.let_server("ignores SIGTERM")
        library = server.checkout.root / "lib" / "embedded_engine.sh"
        library.write_text(library.read_text().replace("tenths=150", "tenths=3"))
        assert server().code == 0
        (process,) = server.checkout.server_processes()
        result = server("stop")
        assert result.code == 0
        assert f"the server (process {process}) did not stop; killing it" in result.err
        assert server.leftovers() == []

    def test_does_not_stop_another_process_with_the_saved_id(self, server: Server) -> None:
        server()
        (process,) = server.checkout.server_processes()
        file = server.checkout.root / ".run" / "tfserving.pid"
        for other in (str(os.getpid()), "1", "-1", "0", "999999999", "x", ""):
            file.write_text(other)
            assert server("stop").code == 0
        os.kill(process, 0)
        file.write_text(str(process))

    def test_keeps_the_log_after_a_failed_start(self, server: Server) -> None:
        server.checkout.let_server("dies")
        server()
        assert "no such model" in (server.checkout.root / ".run" / "tfserving.log").read_text()

    def test_notes_settings_without_effect(self, server: Server) -> None:
        err = server("--dry-run", RESTART_POLICY="no", DRAIN_SECONDS="3", MODELS_CONFIG="x").err
        for name in ("RESTART_POLICY", "DRAIN_SECONDS", "MODELS_CONFIG"):
            assert f"note: {name} has no effect here (single, embedded)" in err

    def test_rejects_a_missing_model(self, server: Server) -> None:
        rejection = server(MODEL_NAME="flowers").rejection
        assert "/models/flowers does not exist; create the model with" in rejection
        assert "python export_saved_model.py SOURCE --name flowers" in rejection

    def test_fails_without_python(self, server: Server) -> None:
        (server.checkout.stubs / "aiohttp").rename(server.checkout.stubs / "x")
        tools = server.checkout.tmp / "tools"
        tools.mkdir()
        python = tools / "python3"
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)
        (tools / "python").symlink_to(python)
        path = f"{tools}:{server.checkout.environment['PATH']}"
        result = server(PATH=path)
        assert result.code == 1
        assert "run bash quickstart.sh, or python3 -m venv .venv" in result.err


class TestAuto:
    @pytest.mark.parametrize(
        ("engine", "reason"),
        [
            ("works", "engine: docker 20.10.24"),
            ("down", "engine: embedded (docker info failed: Cannot connect to the Docker daemon"),
        ],
    )
    def test_chooses_docker_if_its_daemon_runs(self, checkout: Any, engine: str, reason: str) -> None:
        checkout.add_version("digits", 1)
        checkout.change(engine=engine)
        result = checkout.run("run_tf_serving.sh", "--dry-run")
        assert result.err.startswith(f"run_tf_serving.sh: {reason}")
        assert len(result.err.splitlines()) == 1
        assert result.command[0] == ("docker" if engine == "works" else "env")

    def test_chooses_embedded_if_docker_hangs(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        checkout.change(engine="hangs")
        library = checkout.root / "lib" / "docker_engine.sh"
        library.write_text(
            library.read_text().replace("run_with_timeout 5 docker", "run_with_timeout 1 docker")
        )
        result = checkout.run("run_tf_serving.sh", "--dry-run")
        assert "engine: embedded (docker info did not respond within 5 s)" in result.err

    def test_does_not_fall_back_without_the_image(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        assert "image tfserving-digits is not available" in checkout.run("run_tf_serving.sh").rejection

    def test_fails_if_engine_is_docker_without_a_daemon(self, checkout: Any) -> None:
        checkout.change(engine="down")
        result = checkout.run("run_tf_serving.sh", ENGINE="docker")
        assert result.code == 1
        assert "ENGINE=docker, but docker info failed: Cannot connect" in result.err


def test_notes_polling_without_a_mounted_config(checkout: Any) -> None:
    checkout.add_version("digits", 1)
    checkout.add_version("half", 1)
    checkout.add_config()
    poll = {"MODEL_CONFIG_FILE_POLL_WAIT_SECONDS": "1"}
    note = "note: the config in the image never changes; set MODELS_DIR or MODELS_CONFIG to poll a file"
    assert note in checkout.run("run_tf_serving.sh", "multi", "--dry-run", **poll).err
    assert (
        note not in checkout.run("run_tf_serving.sh", "multi", "--dry-run", MODELS_DIR="models", **poll).err
    )


def test_embedded_accepts_names_that_are_not_image_names(checkout: Any) -> None:
    checkout.add_version("a..b", 1)
    result = checkout.run("run_tf_serving.sh", "--dry-run", MODEL_NAME="a..b", ENGINE="embedded")
    assert "--model_name=a..b" in result.command
    rejection = checkout.run("run_tf_serving.sh", "--dry-run", MODEL_NAME="a..b", ENGINE="docker").rejection
    assert (
        "MODEL_NAME=a..b gives no valid default for IMAGE_NAME: tfserving-a..b is not a valid image "
        "reference; set IMAGE_NAME"
    ) in rejection


def test_notes_a_public_address(checkout: Any) -> None:
    result = checkout.run("run_tf_serving.sh", "--dry-run", BIND_ADDRESS="0.0.0.0")
    assert "note: 0.0.0.0 is reachable from other machines" in result.err
