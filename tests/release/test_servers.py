"""The servers that run_tf_serving.sh started, from its labels and from the files in RUN_DIR."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tfserving.errors import InvalidInputError, UnavailableError
from tfserving.release.servers import find_servers, is_same_file, name_servers

SLEEP = "import time; time.sleep(60)"
FLAGS = [
    "--model_config_file=/srv/models/models.config",
    "--host=0.0.0.0",
    "--port=8600",
    "--rest_api_port=8601",
    "--models_dir=/srv/models",
]


@pytest.fixture
def start(tmp_path: Path, eventually: Callable[..., None]) -> Iterator[Callable[..., str]]:
    """Starts a process like embedded_start of lib/embedded_engine.sh; returns its process id."""
    processes: list[subprocess.Popen[bytes]] = []
    module = tmp_path / "modules" / "pretend_server.py"
    module.parent.mkdir()
    module.write_text(SLEEP)

    def start(name: str, *flags: str) -> str:
        command = [sys.executable, "-m", "pretend_server", *flags]
        processes.append(subprocess.Popen(command, cwd=module.parent))
        process = str(processes[-1].pid)
        eventually(lambda: Path(f"/proc/{process}/cmdline").read_bytes() != b"")
        (tmp_path / f"{name}.pid").write_text(f"{process}\n")
        lines = ["env", "PYTHONPATH=/checkout", *command]
        (tmp_path / f"{name}.command").write_text("\n".join(lines) + "\n")
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a docker command with these containers, or this error, on PATH."""
    binary = tmp_path / "bin" / "docker"
    binary.parent.mkdir()
    monkeypatch.setenv("PATH", str(binary.parent), prepend=":")

    def make(*containers: dict[str, object], error: str = "") -> None:
        (tmp_path / "containers").write_text(json.dumps(containers))
        text = f'#!/bin/sh\ncase $1 in ps) echo c1 ;; *) cat "{tmp_path}/containers" ;; esac\n'
        if error:
            text = f"#!/bin/sh\necho '{error}' >&2\nexit 1\n"
        binary.write_text(text)
        binary.chmod(0o755)

    return make


def container(*mounts: tuple[str, str], mode: str = "multi", args: tuple[str, ...] = (), **labels: str):
    named = {f"tfserving.{name}": value for name, value in labels.items()}
    return {
        "Id": "c1",
        "Name": "/ranker",
        "Args": list(args),
        "Config": {"Labels": {"tfserving.mode": mode, **named}},
        "Mounts": [{"Source": source, "Destination": target} for source, target in mounts],
    }


def test_finds_a_running_embedded_server(tmp_path, start):
    start("ranker", *FLAGS, "--model_config_file_poll_wait_seconds=2")
    (server,) = find_servers(tmp_path, engine="embedded")
    assert (server.name, server.address, server.rest) == ("ranker", "127.0.0.1:8600", "127.0.0.1:8601")
    assert server.config == Path("/srv/models/models.config")
    assert server.models_dir == Path("/srv/models")
    assert (server.engine, server.polls, server.problem) == ("embedded", True, "")
    assert server.active_config == tmp_path / "ranker.config"


def test_ignores_a_process_id_that_another_program_has(tmp_path, start):
    start("ranker", *FLAGS)
    process = start("other", "--port=8700")
    (tmp_path / "ranker.pid").write_text(process)
    assert [server.name for server in find_servers(tmp_path, engine="embedded")] == ["other"]


def test_reports_that_a_server_of_one_model_has_no_config(tmp_path, start):
    start("one", "--model_name=digits", "--host=127.0.0.1", "--port=8600", "--rest_api_port=8601")
    (server,) = find_servers(tmp_path, engine="embedded")
    assert server.config is None
    assert "serves model digits without a models.config" in server.problem


@pytest.mark.parametrize(
    ("mounts", "label", "config"),
    [
        ([("/srv/models", "/models")], "/models/models.config", "/srv/models/models.config"),
        ([("/srv/models", "/models")], "/models/team/a.config", "/srv/models/team/a.config"),
        (
            [("/srv/models", "/models"), ("/etc/mine", "/etc/tfserving/config")],
            "/etc/tfserving/config/a.config",
            "/etc/mine/a.config",
        ),
    ],
)
def test_finds_the_config_of_a_container_on_this_machine(tmp_path, docker, mounts, label, config):
    docker(container(*mounts, grpc="0.0.0.0:8500", rest="0.0.0.0:8501", models_config=label))
    (server,) = find_servers(tmp_path, engine="docker")
    assert (server.name, server.address, server.rest) == ("ranker", "127.0.0.1:8500", "127.0.0.1:8501")
    assert (server.config, server.problem) == (Path(config), "")


def test_reports_a_config_in_the_image(tmp_path, docker):
    docker(container(grpc="[::1]:8500", rest="[::1]:8501"))
    (server,) = find_servers(tmp_path, engine="docker")
    assert server.address == "[::1]:8500"
    assert server.config is None
    assert "reads the models.config in its image" in server.problem


def test_reports_a_config_that_is_mounted_as_a_file(tmp_path, docker):
    mount = ("/srv/models.config", "/models/models.config")
    docker(container(mount, grpc="127.0.0.1:1", rest="127.0.0.1:2", models_config=mount[1]))
    (server,) = find_servers(tmp_path, engine="docker")
    assert server.config == Path("/srv/models.config")
    assert "mounted as a single file" in server.problem


def test_finds_no_container_where_no_daemon_runs(tmp_path, docker):
    docker(error="Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
    assert find_servers(tmp_path) == []


def test_rejects_to_guess_when_docker_fails(tmp_path, docker):
    docker(error="permission denied while trying to connect to the docker API")
    with pytest.raises(UnavailableError, match=r"permission denied .*; set ENGINE=embedded"):
        find_servers(tmp_path)


def test_named_servers_keep_what_is_known_of_them(tmp_path, start):
    start("ranker", *FLAGS)
    servers = name_servers("127.0.0.1:8600,other:9000", find_servers(tmp_path, engine="embedded"))
    assert [server.name for server in servers] == ["ranker", ""]
    assert (servers[1].address, servers[1].rest) == ("other:9000", "other:9001")


def test_a_server_that_is_named_localhost_is_known(tmp_path, start):
    start("ranker", *FLAGS)
    (server,) = name_servers("localhost:8600", find_servers(tmp_path, engine="embedded"))
    assert (server.name, server.address) == ("ranker", "localhost:8600")
    with pytest.raises(InvalidInputError, match=r"localhost:8600 is given twice"):
        name_servers("127.0.0.1:8600,localhost:8600")


def test_rejects_a_server_that_is_named_twice():
    with pytest.raises(InvalidInputError, match=r"127.0.0.1:8500 is given twice"):
        name_servers("127.0.0.1:8500,127.0.0.1")


def test_compares_files_after_links_are_resolved(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "models")
    assert is_same_file(tmp_path / "link" / "models.config", tmp_path / "models" / "models.config")
    assert not is_same_file(None, tmp_path)
