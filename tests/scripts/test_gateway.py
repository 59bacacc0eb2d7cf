"""deploy/gateway/gateway.sh before it runs docker. tests/integration/test_gateway_container.py runs it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.embedded import ROOT

SCRIPT = ROOT / "deploy" / "gateway" / "gateway.sh"


@pytest.fixture
def run(tmp_path):
    """run(*arguments, **variables) with a certificate in TLS_DIR."""
    (tmp_path / "tls").mkdir()
    for name in ("tls.crt", "tls.key"):
        (tmp_path / "tls" / name).write_text("")

    def run_script(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        directories = {
            "GATEWAY_DIR": tmp_path / "gateway",
            "TLS_DIR": tmp_path / "tls",
            "RUN_DIR": tmp_path / "run",
        }
        environment = {"PATH": os.environ["PATH"], **{name: str(path) for name, path in directories.items()}}
        return subprocess.run(
            ["bash", str(SCRIPT), *arguments],
            env={**environment, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run_script


def user() -> str:
    return "101:101" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"


def test_dry_run_prints_the_command_and_creates_nothing(run, tmp_path: Path) -> None:
    done = run("up", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert shlex.split(done.stdout) == [
        *("docker", "run", "--detach", "--name", "tfserving-gateway"),
        *(
            "--label",
            "tfserving.gateway=127.0.0.1:8443",
            "--label",
            "tfserving.gateway_metrics=127.0.0.1:9902",
        ),
        *("--network", "tfserving", "--publish", "127.0.0.1:8443:8443", "--publish", "127.0.0.1:9902:9902"),
        *("--user", user(), "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--pids-limit", "1024", "--restart", "unless-stopped", "--log-opt", "max-size=10m", "--log-opt"),
        *("max-file=3", "--mount"),
        f"type=bind,source={tmp_path}/run/tfserving-gateway.yaml,target=/etc/envoy/envoy.yaml,readonly",
        "--mount",
        f"type=bind,source={tmp_path}/gateway,target=/etc/envoy/dynamic,readonly",
        "--mount",
        f"type=bind,source={tmp_path}/tls,target=/etc/envoy/tls,readonly",
        *("envoyproxy/envoy:v1.40.0", "--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart"),
        *("--log-level", "warning", "--file-flush-interval-msec", "1000"),
    ]
    assert not (tmp_path / "gateway").exists()
    assert not (tmp_path / "run").exists()


def test_dry_run_uses_the_variables(run) -> None:
    variables = {"GATEWAY_NAME": "edge", "GATEWAY_PORT": "0443", "BIND_ADDRESS": "0.0.0.0", "NETWORK": "prod"}
    command = run("up", "--dry-run", MEMORY="2g", CPUS="1.5", METRICS_PORT="9000", **variables).stdout
    for part in (
        "--name edge ",
        "--publish 0.0.0.0:443:8443 --publish 127.0.0.1:9000:9902 ",
        "--network prod ",
        "--memory 2g --memory-swap 2g --cpus 1.5 ",
        "/run/edge.yaml,",
    ):
        assert part in command


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ((), {}, "the action is missing; use one of up, status, down, logs"),
        (("up", "down"), {}, "up and down are mutually exclusive"),
        (("start",), {}, "unknown argument start"),
        (("down", "--dry-run"), {}, "down does not support --dry-run; use it with up"),
        (("up", "--follow"), {}, "--follow is an option of logs only; omit it"),
        (("up",), {"GATEWAY_PORT": "99999"}, "GATEWAY_PORT=99999 is not a valid port (1-65535)"),
        (("up",), {"GATEWAY_PORT": "9902"}, "GATEWAY_PORT and METRICS_PORT are both 9902"),
        (("up",), {"GATEWAY_NAME": "a b"}, "GATEWAY_NAME='a b' is not a valid name"),
        (("up",), {"NETWORK": "-x"}, "NETWORK=-x is not a valid name"),
        (("up",), {"STABLE": "a;b"}, "STABLE='a;b' is not a valid list of containers"),
        (("up",), {"GATEWAY_IMAGE": "-v"}, "GATEWAY_IMAGE=-v is not a valid image reference"),
        (("up",), {"AUTHENTICATION": "none"}, "AUTHENTICATION=none is not a valid kind of authentication"),
        (("up",), {"MEMORY": "much"}, "MEMORY=much is not a valid memory size"),
        (("up",), {"MODEL_NAME": "a/b"}, "MODEL_NAME=a/b is not a valid model name"),
        (("up",), {"AUTHENTICATION": "certificate"}, "has no client-ca.crt"),
        (("up",), {"TLS_DIR": "missing"}, "missing has no tls.crt; put the gateway's certificate there, or"),
    ],
)
def test_rejects_invalid_settings(run, arguments, variables, message) -> None:
    done = run(*arguments, **variables)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert message in done.stderr


@pytest.mark.parametrize(("kind", "other"), [("token", "certificate"), ("certificate", "token")])
def test_rejects_a_directory_for_another_authentication(run, tmp_path: Path, kind: str, other: str) -> None:
    (tmp_path / "tls" / "client-ca.crt").write_text("")
    source = {"token": "dynamic", "certificate": "client_certificates"}[kind]
    shutil.copytree(SCRIPT.parent / source, tmp_path / "gateway")
    assert run("up", "--dry-run", AUTHENTICATION=kind).returncode == 0
    done = run("up", "--dry-run", AUTHENTICATION=other)
    assert done.returncode == 2
    assert f"AUTHENTICATION={other}, but clients of GATEWAY_DIR=" in done.stderr
    assert f"authenticate with a {kind}; set AUTHENTICATION={kind}, or" in done.stderr


def test_rejects_a_directory_without_its_files(run, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    done = run("up", "--dry-run")
    assert done.returncode == 2
    assert "has no readable authentication.json; remove the directory, or" in done.stderr


def test_the_hint_for_a_missing_certificate_creates_one(run, tmp_path: Path) -> None:
    hint = run("up", TLS_DIR="new").stderr.partition("create one: ")[2]
    subprocess.run(["bash", "-c", hint], check=True, capture_output=True, cwd=tmp_path)
    assert run("up", "--dry-run", TLS_DIR="new").returncode == 0


@pytest.mark.parametrize("ending", ["", "/"])
def test_certificates_are_beside_the_gateway_directory_by_default(run, tmp_path: Path, ending: str) -> None:
    done = run("up", "--dry-run", TLS_DIR="", GATEWAY_DIR=f"gateway{ending}")
    assert done.returncode == 2
    assert f"TLS_DIR={tmp_path}/gateway-tls has no tls.crt" in done.stderr


def test_help_lists_the_variables(run) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "GATEWAY_PORT=8443" in done.stdout
    assert "bash deploy/gateway/gateway.sh up" in done.stdout
