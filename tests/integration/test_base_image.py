"""What the scripts rely on in tensorflow_model_server, for the official image and for the stand-in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Container

pytestmark = pytest.mark.docker

PREDICT = "/v1/models/half:predict"


class BaseImage(Container):
    """A container of the base image, with its own entrypoint, which serves half/1 and half/2."""

    def is_serving(self) -> bool:
        try:
            return self.rest(PREDICT, {"instances": [4.0]}) == (200, {"predictions": [4.0]})
        except OSError:
            return False

    def wait_until_serving(self) -> None:
        self.wait_until(self.is_serving, "serving")

    def wait_for_log(self, text: str) -> None:
        self.wait_until(lambda: text in self.logs(), f"logging {text!r}")


@pytest.fixture
def start(docker: Any, base_image: str, models: Path) -> Iterator[Any]:
    """start(*flags, options=()): a container that is removed after the test."""
    started: list[BaseImage] = []

    def start(*flags: str, options: Sequence[str | Path] = (), ports: bool = True) -> BaseImage:
        mount = ("--volume", f"{models}:/models:ro", "--env", "MODEL_NAME=half", *options)
        started.append(BaseImage(docker, base_image, mount, flags, ports=ports))
        return started[-1]

    yield start
    if started:
        docker.remove(*(container.name for container in started))


def test_ignores_unknown_flags(start: Any) -> None:
    container = start("--no_such_flag=1", "--enable_bathing")
    container.wait_until_serving()
    assert "unknown argument: --no_such_flag=1" in container.logs()


def test_exits_if_a_value_is_not_valid(start: Any) -> None:
    assert start("--grpc_max_threads=many").exit_code() == 255


def test_exits_if_the_config_does_not_parse(start: Any) -> None:
    assert start("--model_config_file=/etc/passwd").exit_code() not in (0, 137)


def test_its_entrypoint_does_not_forward_sigterm(start: Any) -> None:
    container = start()
    container.wait_until_serving()
    container.kill("TERM")
    assert container.is_serving()


def test_the_server_as_pid_1_ignores_sigterm(start: Any) -> None:
    command = (
        "exec tensorflow_model_server --rest_api_port=8501 --model_name=half --model_base_path=/models/half"
    )
    container = start("-c", command, options=("--entrypoint", "bash"))
    container.wait_until_serving()
    container.kill("TERM")
    assert container.is_serving()


def test_sigterm_ends_the_server_without_a_drain(start: Any) -> None:
    container = start("-c", "exec /usr/bin/tf_serving_entrypoint.sh", options=("--entrypoint", "bash"))
    container.wait_until_serving()
    find = 'for f in /proc/[0-9]*/comm; do n=${f%/comm}; echo "${n##*/} $(<"$f")"; done'
    processes = container.exec("bash", "-c", find).stdout.splitlines()
    (server,) = [line.split()[0] for line in processes if line.split()[1] not in ("bash", "tf_serving_entr")]
    assert container.exec("bash", "-c", f"kill -TERM {server}").returncode == 0
    assert container.exit_code() == 128 + 15


def test_shares_its_grpc_port_and_runs_without_rest_if_the_ports_are_in_use(start: Any) -> None:
    first = start()
    first.wait_until_serving()
    second = start(options=("--network", f"container:{first.name}"), ports=False)
    second.wait_for_log("Failed to start HTTP Server")
    assert second.inspect("{{.State.Status}}") == first.inspect("{{.State.Status}}") == "running"


def test_logs_a_failed_load_and_retries_it(start: Any, tmp_path: Path) -> None:
    version = tmp_path / "broken" / "7"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"\xff garbage")
    mounted = ("--volume", f"{tmp_path}:/others:ro", "--env", "MODEL_BASE_PATH=/others")
    options = (*mounted, "--env", "MODEL_NAME=broken")
    start("--max_num_load_retries=1", "--load_retry_interval_micros=1000", options=options).wait_for_log(
        "Loading servable: {name: broken version: 7} failed: "
    )


@pytest.mark.parametrize("command", ["python3", "curl", "wget"])
def test_has_bash_and_no_other_tools_for_http(docker: Any, base_image: str, command: str) -> None:
    found = docker.run("run", "--rm", "--entrypoint", "bash", base_image, "-c", f"command -v {command}")
    assert (found.returncode, found.stdout) == (1, "")
