"""run_tf_serving.sh from start to stop on both engines, with a fake docker and a fake embedded server."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
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

    def processes(self) -> list[int]:
        """The processes of the servers, of either engine."""
        containers: list[dict[str, Any]] = list(self.checkout.state["containers"].values())
        return [*self.checkout.server_processes(), *(container["pid"] for container in containers)]

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
    assert head.startswith(f"tfserving: {where}, ")
    details = "image tfserving-digits, models in the image, starting"
    assert head.endswith(details if server.engine == "docker" else f", models {server.checkout.models}")
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


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("", "names no model"),
        ("model_config_list {", "names no model"),
        (None, "cannot be read (cat: "),
        (
            "model_config_list { config { name: 'other' } }",
            "has changed, and the server does not reload it; restart it",
        ),
    ],
    ids=["empty", "broken", "removed", "changed"],
)
def test_status_reports_the_config_in_force(server: Server, text: str | None, note: str) -> None:
    assert server("multi", MODELS_DIR="models").code == 0
    assert server("status").err == ""
    file = server.checkout.models / "models.config"
    file.unlink()
    if text is not None:
        file.write_text(text)
    status = server("status")
    assert status.code == 0
    assert [row.split()[0] for row in status.out.splitlines()[1:]] == ["digits", "half"]
    path = str(file) if server.engine == "embedded" else "/models/models.config"
    assert f"note: the server uses the config that it read before: {path} {note}" in status.err or (
        f"note: {path} {note}" in status.err
    )
    server.checkout.serve({"half": {"1": "END"}})
    assert server("status").code == 1


def test_status_checks_a_config_that_the_server_polls(server: Server) -> None:
    polled = {"MODELS_DIR": "models", "MODEL_CONFIG_FILE_POLL_WAIT_SECONDS": "1"}
    assert server("multi", **polled).code == 0
    config = server.checkout.models / "models.config"
    config.write_text(config.read_text().replace("all {}", "some {}"))
    status = server("status")
    assert status.code == 0
    assert "note: the server uses the config that it read before: " in status.err
    assert "models.config:7" in status.err
    server.checkout.add_config()
    status = server("status")
    assert (status.code, status.err) == (0, "")


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
    assert status.out.splitlines()[1].split() == ["digits", "-", "not", "found"]


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


def test_a_restart_with_a_gpu_that_does_not_exist_keeps_the_server(server: Server) -> None:
    server.checkout.add_single_image("digits", "CUDA_VERSION=12")
    server.checkout.add_gpus("NVIDIA H200")
    assert server(GPU="0").code == 0
    before = server.processes()
    assert "GPU=7 names 7, which is not a GPU of this machine" in server("restart", GPU="7").rejection
    assert server.processes() == before
    assert server("status").code == 0


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


def test_status_reports_a_frozen_server(server: Server) -> None:
    assert server("multi").code == 0
    for process in server.processes():
        os.kill(process, signal.SIGSTOP)
    status = server("status")
    assert status.code == 1
    rows = [row.split() for row in status.out.splitlines()[1:]]
    assert rows == [["digits", "-", "no", "response"], ["half", "-", "no", "response"]]
    assert status.err == "run_tf_serving.sh: tfserving did not respond within 5 s\n"


def test_start_fails_after_its_timeout_if_the_server_freezes(server: Server) -> None:
    server.checkout.let_server("freezes")
    library = server.checkout.root / "lib" / "embedded_engine.sh"
    library.write_text(library.read_text().replace("tenths=150", "tenths=3"))
    result = server(START_TIMEOUT="2")
    assert result.code == 1
    assert "error: not AVAILABLE within START_TIMEOUT=2 s; digits: no response yet" in result.err
    assert server.leftovers() == []


def finish(*processes: subprocess.Popen[str]) -> dict[int, list[str]]:
    """What each process printed to stderr, by exit code."""
    errors: dict[int, list[str]] = {}
    for process in processes:
        _, err = process.communicate(timeout=60)
        errors.setdefault(process.returncode, []).append(err)
    return errors


def test_one_of_two_concurrent_starts_of_a_name_wins(server: Server) -> None:
    starts = [server.checkout.start("run_tf_serving.sh", **server.variables) for _ in range(4)]
    errors = finish(*starts)
    assert len(errors.pop(0)) == 1
    for err in itertools.chain(*errors.values()):
        assert re.search(r"tfserving is already running|is starting or stopping tfserving; wait", err), err
    assert len(server.leftovers()) == 1
    assert server("status").code == 0
    assert server("stop").code == 0
    assert server.leftovers() == []


def test_one_of_two_concurrent_starts_with_the_same_ports_wins(server: Server) -> None:
    starts = [
        server.checkout.start("run_tf_serving.sh", **server.variables, CONTAINER_NAME=name)
        for name in ("one", "two")
    ]
    errors = finish(*starts)
    assert len(errors.pop(0)) == 1
    ((err,),) = errors.values()
    assert re.search(r"port \d+ is in use by|docker run failed|the server exited", err), err
    assert len(server.leftovers()) == 1


def test_a_start_fails_while_another_one_runs(server: Server) -> None:
    server.checkout.serve({"digits": {"1": "LOADING"}})
    process = server.checkout.start("run_tf_serving.sh", **server.variables)
    assert any("LOADING" in line for line in iter(process.stderr.readline, ""))
    result = server()
    assert result.code == 1
    assert (
        f"another run_tf_serving.sh (process {process.pid}) is starting or stopping tfserving" in result.err
    )
    server.checkout.serve({})
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert list((server.checkout.root / ".run").glob("*.lock@*")) == []


def test_a_lock_ends_with_its_process(server: Server) -> None:
    locks = [
        server.checkout.root / ".run" / f"tfserving.lock@{process}@1" for process in (os.getpid(), 99999999)
    ]
    locks[0].parent.mkdir()
    for lock in locks:
        lock.touch()
    assert server().code == 0
    assert not any(lock.exists() for lock in locks)


def test_stop_succeeds_without_a_server(server: Server) -> None:
    result = server("stop")
    assert (result.code, result.out) == (0, "")
    assert "tfserving is not running" in result.err


UNKNOWN = [
    (
        "denied",
        "permission denied while trying to connect to the Docker daemon socket; add your user to the group",
    ),
    ("broken", "request returned Internal Server Error; fix the error that docker info reports"),
    ("hangs", "docker info did not respond within 5 s; restart the daemon"),
]


def hide_docker(checkout: Any) -> None:
    """Removes docker from PATH: the directory of the fake one, and those of a real one."""
    path = checkout.environment["PATH"].split(":")[1:]
    tools = checkout.tmp / "tools"
    tools.mkdir()
    for directory in [place for place in path if (Path(place) / "docker").exists()]:
        path.remove(directory)
        for tool in Path(directory).iterdir():
            if tool.name != "docker" and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    checkout.environment["PATH"] = ":".join([*path, str(tools)])


@pytest.mark.parametrize("action", ["stop", "status"])
class TestWithoutAnswerOfDocker:
    @pytest.mark.parametrize(
        ("engine", "reason"), [*UNKNOWN, ("down", "Is the docker daemon running?; start the daemon")]
    )
    @pytest.mark.parametrize("chosen", ["auto", "docker"])
    def test_fails_since_it_cannot_know(
        self, checkout: Any, action: str, engine: str, reason: str, chosen: str
    ) -> None:
        checkout.change(engine=engine)
        result = checkout.run("run_tf_serving.sh", action, ENGINE=chosen)
        assert (result.code, result.out) == (1, "")
        assert "error: cannot tell whether tfserving is running: docker info" in result.err
        assert reason in result.err
        assert "is not running" not in result.err

    @pytest.mark.parametrize("engine", ["denied", "hangs"])
    def test_finds_an_embedded_server(
        self, checkout: Any, ports: dict[str, str], action: str, engine: str
    ) -> None:
        checkout.add_version("digits", 1)
        assert checkout.run("run_tf_serving.sh", ENGINE="embedded", **ports).code == 0
        checkout.change(engine=engine)
        assert checkout.run("run_tf_serving.sh", action).code == 0

    def test_knows_that_no_container_runs_if_docker_is_not_installed(
        self, checkout: Any, action: str
    ) -> None:
        hide_docker(checkout)
        result = checkout.run("run_tf_serving.sh", action)
        assert result.code == (0 if action == "stop" else 1)
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
        assert [call[0] for call in server.checkout.calls("rm")] == ["rm"]

    def test_start_fails_if_docker_run_fails(self, server: Server) -> None:
        server.checkout.change(run="fails")
        result = server()
        assert result.code == 1
        assert "driver failed programming" in result.err
        assert "error: docker run failed; its output is above" in result.err
        assert server.leftovers() == []

    def test_does_not_remove_a_container_that_another_checkout_started_meanwhile(
        self, server: Server
    ) -> None:
        server.checkout.serve({"digits": {"1": "LOADING"}})
        first = server.checkout.start("run_tf_serving.sh", **server.variables)
        assert any("LOADING" in line for line in iter(first.stderr.readline, ""))
        # What the second checkout would run: the name was free when it checked.
        library = server.checkout.root / "lib" / "docker_engine.sh"
        library.write_text(f"{library.read_text()}\ndocker_find() {{ FOUND='' FOUND_ID=''; }}\n")
        for lock in (server.checkout.root / ".run").glob("*.lock@*"):
            lock.rename(lock.with_suffix(".x"))
        ports = {name: str(int(port) + 1) for name, port in server.ports.items()}
        second = server(**ports)
        assert second.code == 1
        assert 'The name "/tfserving" is already in use' in second.err
        server.checkout.serve({})
        first.communicate(timeout=60)
        assert first.returncode == 0
        assert len(server.leftovers()) == 1

    def test_serves_the_model_of_the_image(self, server: Server) -> None:
        server.checkout.add_image("mine", mode="single", model_name="flowers", models="flowers:1")
        server.checkout.serve({"digits": {}})
        assert server(IMAGE_NAME="mine").code == 0
        assert server("status").out.splitlines()[1].split()[0] == "flowers"

    def test_does_not_stop_a_container_of_another_program(self, server: Server) -> None:
        server.checkout.add_container("tfserving")
        for action in ("stop", "status", "logs"):
            assert "container tfserving was not started by this script" in server(action).err
        assert server.checkout.calls("stop") == server.checkout.calls("rm") == []

    def test_status_shows_why_a_container_stopped(self, server: Server) -> None:
        server()
        containers = server.checkout.state["containers"]
        os.kill(containers["tfserving"]["pid"], signal.SIGKILL)
        containers["tfserving"].update(status="exited", exit_code=137, oom=True, restarts=2, pid=None)
        server.checkout.change(containers=containers)
        result = server("status")
        assert (result.code, result.out) == (1, "")
        details = "restarts 2, exit code 137 at 2026-01-02T03:04:05 (out of memory)"
        assert f"tfserving: image tfserving-digits, models in the image, {details}\n" in result.err

    def test_status_shows_that_a_container_restarts(self, server: Server) -> None:
        server()
        containers = server.checkout.state["containers"]
        containers["tfserving"].update(status="restarting", exit_code=1, restarts=7)
        server.checkout.change(containers=containers)
        head = server("status").out.splitlines()[0]
        assert head.endswith("restarts 7, exit code 1 at 2026-01-02T03:04:05, restarting")

    def test_status_shows_when_an_image_was_built(self, server: Server) -> None:
        server()
        containers = server.checkout.state["containers"]
        containers["tfserving"]["labels"]["org.opencontainers.image.created"] = "2026-01-02T03:04:05Z"
        containers["tfserving"]["labels"]["org.opencontainers.image.revision"] = "0123456789-dirty"
        server.checkout.change(containers=containers)
        built = "image tfserving-digits (built 2026-01-02T03:04:05Z, revision 0123456), models in the image"
        assert built in server("status").out

    def test_status_of_a_container_without_a_config_has_no_notes(self, server: Server) -> None:
        server()
        result = server("status")
        assert result.err == ""
        assert "config mounted" not in result.out

    def test_status_lists_the_models_of_a_polled_config(self, server: Server) -> None:
        assert server("multi", MODELS_DIR="models", MODEL_CONFIG_FILE_POLL_WAIT_SECONDS="1").code == 0
        config = server.checkout.models / "models.config"
        config.write_text(config.read_text().replace("digits", "new"))
        server.checkout.serve({"new": {}})  # not in the config that the health check recorded
        status = server("status")
        assert (status.code, status.err) == (1, "")
        rows = [row.split() for row in status.out.splitlines()[1:]]
        assert rows == [["new", "-", "not", "found"], ["half", "1", "AVAILABLE"]]

    def test_status_shows_whether_models_are_mounted(self, server: Server) -> None:
        server(MODELS_DIR="models")
        assert f", models {server.checkout.models}, starting" in server("status").out

    def test_status_shows_that_a_container_drains(self, server: Server) -> None:
        server()
        (server.checkout.world / "server_state").mkdir()
        (server.checkout.world / "server_state" / "draining").touch()
        status = server("status")
        assert status.code == 0
        assert status.out.splitlines()[0].endswith(", draining")

    def test_an_interrupted_stop_says_that_another_one_ends_the_drain(self, server: Server) -> None:
        assert server().code == 0
        server.checkout.change(stop="drains")
        process = server.checkout.start("run_tf_serving.sh", "stop", **server.variables)
        while not (server.checkout.world / "server_state" / "draining").exists():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGTERM)  # bash cannot trap SIGINT if the tests run in the background
        _, err = process.communicate(timeout=60)
        assert process.returncode == 143
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

    @pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "gpu")])
    def test_xla_compiles_for_the_gpu_if_there_is_one(self, server: Server, gpus: int, device: str) -> None:
        server.checkout.add_gpus(*["NVIDIA H200"] * gpus)
        assert server("--dry-run", XLA="true").command[-1] == f"--xla_{device}_compilation_enabled=true"
        assert server("--dry-run", XLA="auto").command[-2:] == [
            f"--xla_{device}_compilation_enabled=true",
            "--xla_auto_jit=true",
        ]

    @pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="nvidia-smi is installed")
    def test_without_nvidia_smi_the_server_checks_the_gpu(self, server: Server) -> None:
        server.checkout.nvidia_smi.unlink()
        assert server(GPU="7").code == 0
        assert server.checkout.served()["environment"] == {"CUDA_VISIBLE_DEVICES": "7"}

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
        server.checkout.add_gpus("NVIDIA H200", "NVIDIA H200")
        assert server("--", flag, GPU="0,1").code == 0
        served = server.checkout.served()
        assert served["argv"][-1] == flag
        assert served["environment"] == {"CUDA_VISIBLE_DEVICES": "0,1"}

    def test_status_follows_a_config_that_the_server_reloads(self, server: Server) -> None:
        assert server("multi", MODEL_CONFIG_FILE_POLL_WAIT_SECONDS="1").code == 0
        log = server.checkout.root / ".run" / "tfserving.log"
        with log.open("a") as lines:
            lines.write("INFO the configuration has changed; models: half, other\n")
        assert [row.split()[0] for row in server("status").out.splitlines()[1:]] == ["half", "other"]
        with log.open("a") as lines:
            lines.write("ERROR the configuration is not reloaded: label 'a' names version 2\n")
        assert "last attempt to reload" in server("status").err
        assert "models.config failed: label 'a' names version 2" in server("status").err

    def test_status_names_the_log_of_a_server_that_exited(self, server: Server) -> None:
        server()
        (process,) = server.checkout.server_processes()
        os.kill(process, signal.SIGKILL)
        result = server("status")
        assert result.code == 1
        assert f"its process {process} has exited; its log: tail -f " in result.err

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

    def test_restart_waits_until_a_killed_server_has_freed_its_ports(self, server: Server) -> None:
        server.checkout.let_server("ignores SIGTERM")
        library = server.checkout.root / "lib" / "embedded_engine.sh"
        text = library.read_text().replace("tenths=150", "tenths=3")
        text += 'kill() { if [[ $1 == -KILL ]]; then kill_later & else builtin kill "$@"; fi; }\n'
        text += 'kill_later() { sleep 1 && builtin kill -KILL "$SERVER_PID"; }\n'
        library.write_text(text)
        assert server().code == 0
        result = server("restart")
        assert result.code == 0, result.err
        assert "did not stop; killing it" in result.err

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

    def test_connections_have_a_maximum_age(self, server: Server) -> None:
        flags = ("--grpc_max_threads=8", "--grpc_channel_arguments=a=1")
        command = server("--dry-run", "--", *flags, MAX_CONNECTION_AGE_SECONDS="060").command
        assert command[-3:] == [*flags, "--grpc_channel_arguments=grpc.max_connection_age_ms=60000,a=1"]

    def test_notes_a_grace_without_a_connection_age(self, server: Server) -> None:
        err = server("--dry-run", MAX_CONNECTION_AGE_GRACE_SECONDS="5").err
        assert (
            "note: MAX_CONNECTION_AGE_GRACE_SECONDS has no effect without MAX_CONNECTION_AGE_SECONDS" in err
        )

    def test_rejects_a_missing_model(self, server: Server) -> None:
        rejection = server(MODEL_NAME="flowers").rejection
        assert "/models/flowers does not exist; create the model with" in rejection
        assert "python export_saved_model.py SOURCE --name flowers" in rejection

    def test_fails_without_python(self, server: Server) -> None:
        (server.checkout.stubs / "httptools").rename(server.checkout.stubs / "x")
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

    def test_chooses_embedded_if_docker_is_not_installed(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        hide_docker(checkout)
        result = checkout.run("run_tf_serving.sh", "--dry-run")
        assert "engine: embedded (docker is not installed)" in result.err
        assert result.command[0] == "env"

    @pytest.mark.parametrize(("engine", "reason"), UNKNOWN)
    def test_fails_if_docker_is_installed_and_not_usable(
        self, checkout: Any, engine: str, reason: str
    ) -> None:
        checkout.add_version("digits", 1)
        checkout.change(engine=engine)
        result = checkout.run("run_tf_serving.sh", "--dry-run")
        assert (result.code, result.out) == (1, "")
        assert reason in result.err
        assert "or set ENGINE=embedded to serve without docker" in result.err

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
