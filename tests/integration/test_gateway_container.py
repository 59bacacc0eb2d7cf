"""deploy/gateway/gateway.sh with a real Docker daemon, Envoy and model servers."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.embedded import ROOT
from tests.gateway.envoy import skip
from tests.integration.conftest import HARDENED
from tests.server.certificates import certificate
from tfserving.client import TfRestClient, TfRpcClient, Tls
from tfserving.errors import PermissionDeniedError
from tfserving.gateway.client_tokens import add_token, revoke_tokens
from tfserving.gateway.traffic_weights import write_weights

pytestmark = [pytest.mark.docker, pytest.mark.tensorflow]

SCRIPT = ROOT / "deploy" / "gateway" / "gateway.sh"


@pytest.fixture(scope="module")
def envoy_image(docker):
    """TFSERVING_TEST_ENVOY_IMAGE, else the default of the script."""
    (default,) = re.findall(r'^: "\$\{GATEWAY_IMAGE:=(.*?)\}"', SCRIPT.read_text(), re.M)
    image = os.environ.get("TFSERVING_TEST_ENVOY_IMAGE") or default
    if docker.run("image", "inspect", image).returncode != 0:
        pull = docker.run("pull", "--quiet", image, timeout=600)
        if pull.returncode != 0:
            skip(f"no image {image}: {pull.stderr.strip()}")
    return image


@pytest.fixture
def network(docker):
    name = docker.name("network")
    docker("network", "create", name)
    yield name
    docker.run("network", "rm", name)


@pytest.fixture
def start_server(docker, base_image, network):
    """start(group, models): a model server of the group."""
    started = []

    def start(group: str, models: Path) -> str:
        name = docker.name("server")
        started.append(name)
        options = ("--network", network, "--network-alias", group, "--env", "MODEL_NAME=half")
        mount = ("--volume", f"{models}:/models/half:ro")
        docker("run", "--detach", "--name", name, *HARDENED, *options, *mount, base_image)
        return name

    yield start
    docker.remove(*started)


@pytest.fixture
def script(docker, envoy_image, network, tmp_path):
    """Runs gateway.sh with its own names, directories and ports; removes the gateway afterwards."""
    (tmp_path / "tls").mkdir()
    for name, text in zip(("tls.crt", "tls.key"), certificate(), strict=True):
        (tmp_path / "tls" / name).write_text(text)
    tmp_path.chmod(0o755)
    container = docker.name("gateway")
    ports = [docker_port() for _ in range(2)]
    variables = {
        "GATEWAY_NAME": container,
        "GATEWAY_IMAGE": envoy_image,
        "GATEWAY_PORT": str(ports[0]),
        "METRICS_PORT": str(ports[1]),
        "GATEWAY_DIR": str(tmp_path / "gateway"),
        "TLS_DIR": str(tmp_path / "tls"),
        "RUN_DIR": str(tmp_path / "run"),
        "NETWORK": network,
        "MODEL_NAME": "half",
    }

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **variables, **changes}
        command = ["bash", str(SCRIPT), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    run.address = f"localhost:{ports[0]}"  # type: ignore[attr-defined]
    yield run
    docker.remove(container)


def docker_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_serves_two_groups_and_changes_at_run_time(
    docker, script, start_server, models, tmp_path, eventually
):
    stable = start_server("stable", models / "half")
    start_server("canary", models / "other")
    endpoint = endpoint_of(docker, stable)
    done = script("up", STABLE=stable)
    assert done.returncode == 0, done.stderr
    assert "no client can call yet" in done.stderr
    assert endpoint_of(docker, stable) == endpoint  # it was connected already
    directory, tls = tmp_path / "gateway", Tls(ca=tmp_path / "tls" / "tls.crt")
    metadata = {"authorization": f"Bearer {add_token(directory, 'client')[1]}"}
    eventually(lambda: script("status").stdout.count("1 of 1 servers healthy") == 2)
    with (
        TfRpcClient(script.address, "half", tls=tls, metadata=metadata) as rpc,
        TfRestClient(f"https://{script.address}", "half", tls=tls, metadata=metadata) as rest,
    ):
        # stable has version 2, canary version 1: y = x / 2 + version
        for client in (rpc, rest):
            eventually(lambda: is_answered(client))  # noqa: B023 - called in this iteration
            assert client.infer([2.0])["y"].tolist() == [3.0]
        write_weights(directory, {"canary": 100})
        for client in (rpc, rest):
            eventually(lambda: client.infer([2.0])["y"].tolist() == [2.0])  # noqa: B023
        revoke_tokens(directory, "client")
        for client in (rpc, rest):
            eventually(lambda: not is_answered(client))  # noqa: B023
    status = script("status")
    assert status.returncode == 0, status.stderr
    lines = status.stdout.splitlines()
    assert lines[1:] == ["stable     0 %  1 of 1 servers healthy", "canary   100 %  1 of 1 servers healthy"]
    assert '"client":"client"' in script("logs").stdout
    again = script("up")
    assert again.returncode == 2
    assert "is running already" in again.stderr
    assert script("down").returncode == 0
    assert script("status").returncode == 1


def endpoint_of(docker, container):
    return docker(
        "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.EndpointID}}{{end}}", container
    )


def is_answered(client):
    try:
        client.infer([2.0])
    except PermissionDeniedError:
        return False
    return True


def test_a_gateway_that_cannot_start_leaves_nothing_running(script, docker, tmp_path):
    (tmp_path / "tls" / "tls.crt").write_text("not a certificate")
    done = script("up")
    assert done.returncode == 1
    assert "the gateway rejected files of" in done.stderr
    assert "Failed to load certificate chain" in done.stderr
    assert script("status").returncode == 1
