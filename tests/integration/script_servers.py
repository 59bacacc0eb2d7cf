"""Servers that the scripts of a checkout start."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tf_rpc_client import TfRestClient, TfRpcClient

DEADLINE = 60.0

CONFIG = """model_config_list {
  config {
    name: "half" base_path: "/models/half" model_platform: "tensorflow"
    model_version_policy { all {} }
    version_labels { key: "stable" value: 1 }
  }
  config { name: "other" base_path: "/models/other" model_platform: "tensorflow" }
}
"""


def eventually(call: Callable[[], Any], expected: Any) -> None:
    """Calls until the result is the expected one."""
    deadline = time.monotonic() + DEADLINE
    while (result := call()) != expected:
        assert time.monotonic() < deadline, f"{result!r} is not {expected!r} after {DEADLINE} s"
        time.sleep(0.1)


def free_port() -> int:
    """A free port below the range for outgoing connections."""
    while True:
        port = random.randrange(10000, 32000)
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            return port


@dataclass
class Server:
    """One server on one engine: the variables of its script, and requests to it."""

    root: Path
    engine: str
    variables: dict[str, str]
    grpc: str = field(init=False)
    rest: str = field(init=False)

    def __post_init__(self) -> None:
        ports = {"GRPC_PORT": str(free_port()), "REST_PORT": str(free_port())}
        self.variables = {**ports, **self.variables, "ENGINE": self.engine}
        self.grpc, self.rest = (f"127.0.0.1:{self.variables[name]}" for name in ports)

    @property
    def name(self) -> str:
        return self.variables["CONTAINER_NAME"]

    def script(self, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": os.environ["HOME"],
        }
        return subprocess.run(
            ["bash", self.root / name, *arguments],
            env={**environment, **self.variables, **variables},
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def run(self, *arguments: str, **variables: str) -> str:
        """Runs run_tf_serving.sh, which must succeed; returns its output."""
        done = self.script("run_tf_serving.sh", *arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def states(self) -> list[list[str]]:
        """The rows of status: model, version, state."""
        return [line.split() for line in self.script("run_tf_serving.sh", "status").stdout.splitlines()[1:]]

    def over_grpc(self, x: float, model: str = "half", **options: Any) -> float:
        with TfRpcClient(self.grpc, model) as client:
            return float(client.infer([x], **options)["y"][0])

    def over_rest(self, x: float, model: str = "half", **options: Any) -> float:
        with TfRestClient(self.rest, model) as client:
            return float(client.infer([x], **options)["y"][0])

    def serves(self, offset: int, **options: Any) -> None:
        """Asserts that both APIs return y = x / 2 + offset, as the version `offset` of half does."""
        assert self.over_grpc(4.0, **options) == self.over_rest(4.0, **options) == 2.0 + offset


StartServer = Callable[..., Server]


def find_free_ports() -> dict[str, str]:
    """GRPC_PORT and REST_PORT for two replicas."""
    while True:
        first = random.randrange(10000, 32000, 4)
        with contextlib.suppress(OSError):
            for port in range(first, first + 4):
                socket.create_server(("127.0.0.1", port)).close()
            return {"GRPC_PORT": str(first), "REST_PORT": str(first + 1)}
