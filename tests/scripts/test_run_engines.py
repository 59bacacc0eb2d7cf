"""run_tf_serving.sh from start to stop, on both engines: docker is a fake, the embedded server is one too."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest


class Server:
    """The script with the variables that make it start a server here on one engine."""

    def __init__(self, checkout: Any, engine: str, ports: dict[str, str]) -> None:
        self.checkout = checkout
        self.engine = engine
        self.ports = ports
        self.variables = {"ENGINE": engine, **ports}
        checkout.add_version("digits", 1)
        checkout.add_version("half", 1, 2)
        checkout.add_config()
        checkout.add_single_image()
        checkout.add_ensemble_image()

    def __call__(self, *arguments: str, **variables: str) -> Any:
        return self.checkout.run("run_tf_serving.sh", *arguments, **{**self.variables, **variables})

    def left(self) -> list[str]:
        """What still runs, or would stand in the way of another start."""
        processes = [process for process in self.checkout.processes() if Path(f"/proc/{process}").exists()]
        return [*self.checkout.state["containers"], *map(str, processes)]


@pytest.fixture(params=["docker", "embedded"])
def server(request: pytest.FixtureRequest, checkout: Any, ports: dict[str, str]) -> Server:
    return Server(checkout, request.param, ports)


def test_from_start_to_stop(server: Server) -> None:
    grpc, rest = server.ports.values()
    started = server()
    assert (started.code, started.out) == (0, "")
    assert f"serving: gRPC 127.0.0.1:{grpc}, REST http://127.0.0.1:{rest}/v1/models/" in started.err
    assert len(server.left()) == 1

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
    assert server.left() == []
    assert server("status").code == 1


def test_many_models(server: Server) -> None:
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
    assert server.left() == []


def test_the_names_of_a_mounted_config(server: Server) -> None:
    path = "/models/models.config"
    inside = server.checkout.world / "files" / path[1:]
    inside.parent.mkdir(parents=True)
    inside.write_text((server.checkout.models / "models.config").read_text())
    assert server("multi", MODELS_DIR="models").code == 0
    assert len(server("status").out.splitlines()) == 3


def test_status_tells_what_is_not_available(server: Server) -> None:
    server()
    server.checkout.serve({"digits": {"2": "LOADING", "1": "END"}})
    status = server("status")
    assert status.code == 1
    rows = [row.split() for row in status.out.splitlines()[1:]]
    assert rows == [["digits", "2", "LOADING"], ["digits", "1", "END"]]
    server.checkout.serve({"digits": {}})
    status = server("status")
    assert status.code == 1
    assert status.out.splitlines()[1].split() == ["digits", "-", "no", "answer"]


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


def test_a_server_that_dies(server: Server) -> None:
    server.checkout.change(run="dies")
    server.checkout.let_server("dies")
    result = server()
    assert result.code == 1
    assert "logged" in result.err
    assert result.err.endswith("error: the server exited; its log is above\n")
    assert server.left() == []


def test_models_that_are_not_in_time(server: Server) -> None:
    server.checkout.serve({"digits": {"1": "LOADING"}})
    result = server(START_TIMEOUT="1")
    assert result.code == 1
    assert "error: not AVAILABLE within START_TIMEOUT=1 s; digits: version 1 LOADING; its log" in result.err
    assert server.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_waits_leaves_nothing(server: Server, number: int) -> None:
    server.checkout.serve({"digits": {"1": "LOADING"}})
    process = server.checkout.start("run_tf_serving.sh", **server.variables)
    assert any("LOADING" in line for line in iter(process.stderr.readline, ""))
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert server.left() == []


def test_two_side_by_side(server: Server) -> None:
    other_ports = {name: str(int(port) + 1) for name, port in server.ports.items()}
    assert server().code == 0
    assert server(CONTAINER_NAME="second", **other_ports).code == 0
    assert len(server.left()) == 2
    assert server("stop").code == 0
    assert server("status", CONTAINER_NAME="second").code == 0
    assert "set CONTAINER_NAME to one of second" in server("status").err
    assert server("stop", CONTAINER_NAME="second").code == 0
    assert server.left() == []


def test_stop_without_a_server(server: Server) -> None:
    result = server("stop")
    assert (result.code, result.out) == (0, "")
    assert "tfserving is not running" in result.err


class TestDocker:
    @pytest.fixture
    def server(self, checkout: Any, ports: dict[str, str]) -> Server:
        return Server(checkout, "docker", ports)

    @pytest.mark.parametrize("status", ["exited", "created", "dead"])
    def test_a_container_that_ended_is_replaced(self, server: Server, status: str) -> None:
        server.checkout.add_container("tfserving", status, rest="127.0.0.1:1", grpc="127.0.0.1:2")
        assert "image absent does not exist on this machine" in server(IMAGE_NAME="absent").rejection
        assert server.checkout.calls("rm") == []  # its log can still be read
        result = server()
        assert result.code == 0
        assert "replacing container tfserving, which has stopped" in result.err
        assert server.checkout.calls("rm") == [["rm", "--force", "tfserving"]]

    def test_a_start_that_docker_refuses(self, server: Server) -> None:
        server.checkout.change(run="fails")
        result = server()
        assert result.code == 1
        assert "driver failed programming" in result.err
        assert "error: docker run failed; its output is above" in result.err
        assert server.left() == []

    def test_the_model_is_the_one_of_the_image(self, server: Server) -> None:
        server.checkout.add_image("mine", mode="single", model_name="flowers", models="flowers:1")
        server.checkout.serve({"digits": {}})
        assert server(IMAGE_NAME="mine").code == 0
        assert server("status").out.splitlines()[1].split()[0] == "flowers"

    def test_a_container_that_is_not_ours_is_not_stopped(self, server: Server) -> None:
        server.checkout.add_container("tfserving")
        assert "tfserving is not running" in server("stop").err
        assert server.checkout.calls("stop") == server.checkout.calls("rm") == []

    def test_one_that_ended_has_a_log(self, server: Server) -> None:
        server.checkout.add_container("tfserving", "exited", rest="127.0.0.1:1")
        result = server("status")
        assert (result.code, result.out) == (1, "")
        assert "tfserving has stopped; its log: docker logs --follow tfserving" in result.err


class TestEmbedded:
    @pytest.fixture
    def server(self, checkout: Any, ports: dict[str, str]) -> Server:
        return Server(checkout, "embedded", ports)

    def test_the_command(self, server: Server) -> None:
        checkout = server.checkout
        command = checkout.run("run_tf_serving.sh", "--dry-run", ENGINE="embedded").command
        environment, python, *rest = command[:2], command[2], *command[3:]
        assert environment == ["env", f"PYTHONPATH={checkout.root}:{checkout.stubs}"]
        assert Path(python).name.startswith("python")
        assert rest == [
            *("-m", "tfserving.server", "--host=127.0.0.1", "--port=8500", "--rest_api_port=8501"),
            *(f"--models_dir={checkout.models}", "--model_name=digits", "--model_base_path=/models/digits"),
        ]

    def test_many_models_by_their_config(self, server: Server) -> None:
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
        assert command[-7:] == [
            f"--models_dir={checkout.models}",
            f"--model_config_file={checkout.models}/models.config",
            "--allow_version_labels_for_unavailable_models=true",
            "--model_config_file_poll_wait_seconds=2",
            "--enable_model_warmup=false",
            "--per_process_gpu_memory_fraction=0.3",
            "--enable_model_warmup=true",
        ]

    def test_files_are_given_as_they_are(self, server: Server) -> None:
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

    def test_what_the_server_got(self, server: Server) -> None:
        assert server("--", "--a=b c;'d'", GPU="0,1").code == 0
        served = server.checkout.served()
        assert served["argv"][-1] == "--a=b c;'d'"
        assert served["environment"] == {"CUDA_VISIBLE_DEVICES": "0,1"}

    def test_it_outlives_the_terminal(self, server: Server) -> None:
        server()
        (process,) = server.checkout.processes()
        assert os.getpgid(process) == process
        os.kill(process, signal.SIGHUP)
        assert server("status").code == 0

    def test_one_that_does_not_end_is_killed(self, server: Server) -> None:
        server.checkout.let_server("ignores SIGTERM")
        common = server.checkout.root / "lib" / "embedded_engine.sh"
        common.write_text(common.read_text().replace("tenths=150", "tenths=3"))
        assert server().code == 0
        (process,) = server.checkout.processes()
        result = server("stop")
        assert result.code == 0
        assert f"the server (process {process}) did not stop; killing it" in result.err
        assert server.left() == []

    def test_a_process_id_that_is_another_s_by_now(self, server: Server) -> None:
        server()
        (process,) = server.checkout.processes()
        file = server.checkout.root / ".run" / "tfserving.pid"
        for stranger in (str(os.getpid()), "1", "-1", "0", "999999999", "x", ""):
            file.write_text(stranger)
            assert server("stop").code == 0
        os.kill(process, 0)
        file.write_text(str(process))

    def test_the_log_of_one_that_died_stays(self, server: Server) -> None:
        server.checkout.let_server("dies")
        server()
        assert "no such model" in (server.checkout.root / ".run" / "tfserving.log").read_text()

    def test_what_has_no_effect_is_said(self, server: Server) -> None:
        err = server("--dry-run", RESTART_POLICY="no", DRAIN_SECONDS="3", MODELS_CONFIG="x").err
        for name in ("RESTART_POLICY", "DRAIN_SECONDS", "MODELS_CONFIG"):
            assert f"note: {name} has no effect here (single, embedded)" in err

    def test_a_missing_model(self, server: Server) -> None:
        rejection = server(MODEL_NAME="flowers").rejection
        assert "no model flowers" in rejection
        assert "python export_saved_model.py SOURCE --name flowers" in rejection

    def test_no_python_for_it(self, server: Server) -> None:
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
            ("answers", "engine: docker 20.10.24"),
            ("down", "engine: embedded (docker info failed: Cannot connect to the Docker daemon"),
        ],
    )
    def test_docker_where_it_answers(self, checkout: Any, engine: str, reason: str) -> None:
        checkout.add_version("digits", 1)
        checkout.change(engine=engine)
        result = checkout.run("run_tf_serving.sh", "--dry-run")
        assert result.err.startswith(f"run_tf_serving.sh: {reason}")
        assert len(result.err.splitlines()) == 1
        assert result.command[0] == ("docker" if engine == "answers" else "env")

    def test_an_engine_that_hangs(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        checkout.change(engine="hangs")
        library = checkout.root / "lib" / "docker_engine.sh"
        library.write_text(library.read_text().replace("run_with_timeout 5 docker", "run_with_timeout 1 docker"))
        result = checkout.run("run_tf_serving.sh", "--dry-run")
        assert "engine: embedded (docker info did not respond within 5 s)" in result.err

    def test_no_other_reason_falls_back(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        assert "image tfserving-digits does not exist on this machine" in checkout.run("run_tf_serving.sh").rejection

    def test_docker_asked_for_and_not_there(self, checkout: Any) -> None:
        checkout.change(engine="down")
        result = checkout.run("run_tf_serving.sh", ENGINE="docker")
        assert result.code == 1
        assert "ENGINE=docker, but docker info failed: Cannot connect" in result.err


def test_polling_what_never_changes_is_noted(checkout: Any) -> None:
    checkout.add_version("digits", 1)
    checkout.add_version("half", 1)
    checkout.add_config()
    poll = {"MODEL_CONFIG_FILE_POLL_WAIT_SECONDS": "1"}
    note = (
        "note: the config in the image never changes; set MODELS_DIR or MODELS_CONFIG to poll a file"
    )
    assert note in checkout.run("run_tf_serving.sh", "multi", "--dry-run", **poll).err
    assert (
        note not in checkout.run("run_tf_serving.sh", "multi", "--dry-run", MODELS_DIR="models", **poll).err
    )


def test_names_that_make_no_image_are_fine_without_docker(checkout: Any) -> None:
    checkout.add_version("a..b", 1)
    result = checkout.run("run_tf_serving.sh", "--dry-run", MODEL_NAME="a..b", ENGINE="embedded")
    assert "--model_name=a..b" in result.command
    rejection = checkout.run("run_tf_serving.sh", "--dry-run", MODEL_NAME="a..b", ENGINE="docker").rejection
    assert "IMAGE_NAME=tfserving-a..b is not a valid image reference" in rejection


def test_an_open_address_is_noted(checkout: Any) -> None:
    result = checkout.run("run_tf_serving.sh", "--dry-run", BIND_ADDRESS="0.0.0.0")
    assert "note: 0.0.0.0 is reachable from other machines" in result.err
