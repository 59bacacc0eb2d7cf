"""A checkout with copies of the scripts, and a fake docker first on PATH."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.saved_models import saved_model

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPTS = ("build.sh", "build_ensemble.sh", "run_tf_serving.sh", "quickstart.sh")
DEADLINE = 60.0

CONFIG = """model_config_list {
  config { name: "digits" base_path: "/models/digits" model_platform: "tensorflow" }
  config {
    name: "half"
    base_path: "/models/half"
    model_platform: "tensorflow"
    model_version_policy { all {} }
  }
}
"""


@dataclass(frozen=True)
class Result:
    """The exit code and the output of a script."""

    code: int
    out: str
    err: str

    @property
    def command(self) -> list[str]:
        """The command that --dry-run printed, parsed as a shell does."""
        assert self.code == 0, self.err
        (line,) = self.out.splitlines()
        return shlex.split(line)

    @property
    def rejection(self) -> str:
        """The last line that a script printed before it exited with 2."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.out == ""
        assert "Traceback" not in self.err
        return self.err.splitlines()[-1]


class Checkout:
    """Copies of the scripts and their files, and the state of the fake docker."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "checkout"
        self.models = self.root / "models"
        self.world = directory / "world"
        self.tmp = directory / "tmp"
        self.stubs = directory / "stubs"
        binaries = directory / "bin"
        for made in (self.models, self.world, self.tmp, binaries):
            made.mkdir(parents=True)
        for name in (*SCRIPTS, "Dockerfile"):
            shutil.copy(ROOT / name, self.root)
        for name in ("lib", "docker", "deploy/swarm", "deploy/gateway", "deploy/monitoring"):
            shutil.copytree(ROOT / name, self.root / name)
        self._add_package()
        docker = binaries / "docker"
        docker.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {HERE / "fake_docker.py"} "$@"\n')
        docker.chmod(0o755)
        self.nvidia_smi = binaries / "nvidia-smi"
        self.nvidia_smi.write_text(
            '#!/bin/sh\ncat "$FAKE_WORLD/gpus"; grep -q UUID "$FAKE_WORLD/gpus" || exit 6\n'
        )
        self.nvidia_smi.chmod(0o755)
        self.state = {
            "engine": "works",
            "log_driver": "json-file",
            "build": "works",
            "run": "works",
            "images": {},
            "containers": {},
        }
        self.environment = {
            "PATH": f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(directory),
            "TMPDIR": str(self.tmp),
            "PYTHONPATH": str(self.stubs),
            "FAKE_WORLD": str(self.world),
        }
        self.serve({})
        self.let_server("works")
        self.let_server_log("")
        self.add_gpus()

    def _add_package(self) -> None:
        """Adds tfserving with a fake server, and empty packages for what tfserving.server imports."""
        package = self.root / "tfserving"
        (package / "server").mkdir(parents=True)
        for name in ("__init__.py", "__main__.py", "cli", "client", "errors.py", "repository", "wire"):
            (package / name).symlink_to(ROOT / "tfserving" / name)
        (package / "server" / "__init__.py").touch()
        shutil.copy(HERE / "fake_server.py", package / "server" / "__main__.py")
        for name in (
            "tensorflow",
            "google_crc32c",
            "grpc",
            "grpc_health",
            "grpc_reflection",
            "httptools",
            "orjson",
            "uvloop",
        ):
            (self.stubs / name).mkdir(parents=True)
            (self.stubs / name / "__init__.py").touch()

    @property
    def state(self) -> dict[str, Any]:
        """The state of the fake docker; assign to change it."""
        state: dict[str, Any] = json.loads((self.world / "state").read_text())
        return state

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        (self.world / "state").write_text(json.dumps(state))

    def change(self, **changes: object) -> None:
        self.state = {**self.state, **changes}

    def add_image(self, reference: str, *env: str, **labels: str) -> None:
        image = {"env": env, "labels": {f"tfserving.{name}": value for name, value in labels.items()}}
        self.change(images={**self.state["images"], reference: image})

    def add_single_image(self, name: str = "digits", *env: str) -> None:
        self.add_image(f"tfserving-{name}", *env, mode="single", model_name=name, models=f"{name}:1")

    def add_multi_model_image(self) -> None:
        self.add_image("tfserving-ensemble", mode="multi", model_name="", models="digits:1 half:1,2")

    def add_container(self, name: str, status: str = "running", **labels: str) -> None:
        container = {
            "labels": {f"tfserving.{label}": value for label, value in labels.items()},
            "status": status,
            "health": "",
            "restarts": 0,
            "pid": None,
        }
        self.change(containers={**self.state["containers"], name: container})

    def serve(self, models: Mapping[str, Mapping[str, str]]) -> None:
        """Sets what the fake server reports: model → {version: state}."""
        (self.world / "models").write_text(json.dumps(models))

    def let_server(self, behaviour: str) -> None:
        """Sets the behaviour of servers that start later: see fake_server.py."""
        (self.world / "server").write_text(behaviour)

    def let_server_log(self, text: str) -> None:
        """Sets what servers that start later write to their log."""
        (self.world / "log").write_text(text)

    def add_gpus(self, *names: str) -> None:
        """Sets the GPUs that the fake nvidia-smi lists; the UUID of the first one ends in 0."""
        lines = [f"GPU {index}: {name} (UUID: GPU-3a23c669-{index})" for index, name in enumerate(names)]
        (self.world / "gpus").write_text("\n".join(lines or ["No devices were found"]) + "\n")

    def served(self) -> dict[str, Any]:
        """The arguments and environment of the last server that was started."""
        served: dict[str, Any] = json.loads((self.world / "argv").read_text())
        return served

    def add_version(self, name: str, *versions: int | str) -> Path:
        """Creates models/NAME/VERSION/saved_model.pb; returns the model's directory."""
        for version in versions:
            directory = self.models / name / str(version)
            (directory / "variables").mkdir(parents=True)
            graph = saved_model("Placeholder")
            graph.meta_graphs[0].graph_def.node[0].name = f"{name} {version}"
            (directory / "saved_model.pb").write_bytes(graph.SerializeToString())
        return self.models / name

    def add_config(self, text: str = CONFIG, name: str = "models.config") -> Path:
        path = self.models / name
        path.write_text(text)
        return path

    def start(
        self, script: str, *arguments: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(self.root / script), *arguments],
            env={**self.environment, **variables},
            cwd=cwd or self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *arguments: str, cwd: Path | None = None, **variables: str) -> Result:
        process = self.start(script, *arguments, cwd=cwd, **variables)
        try:
            out, err = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"{script} did not exit: {process.communicate()}")
        return Result(process.returncode, out, err)

    def calls(self, *beginning: str) -> list[list[str]]:
        """The calls of docker with these first arguments."""
        file = self.world / "calls"
        calls = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [call for call in calls if call[: len(beginning)] == list(beginning)]

    def server_processes(self) -> list[int]:
        """Process ids of the embedded servers that were started and not stopped."""
        return [int(file.read_text()) for file in self.root.glob(".run/*.pid")]

    def clean(self) -> None:
        containers = [container["pid"] for container in self.state["containers"].values()]
        for process in filter(None, [*self.server_processes(), *containers]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> Iterator[None]:
    """Resets SIGINT, which background jobs of a shell ignore; bash cannot trap an ignored signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path)
    yield made
    made.clean()


@pytest.fixture
def ports() -> dict[str, str]:
    """GRPC_PORT and REST_PORT: free ports; the port after each is free too."""
    return {"GRPC_PORT": str(free_port()), "REST_PORT": str(free_port())}


def free_port() -> int:
    """A free port with a free one after it, below the range for outgoing connections."""
    while True:
        port = random.randrange(10000, 32000, 2)
        with contextlib.suppress(OSError):
            for free in (port, port + 1):
                socket.create_server(("127.0.0.1", free)).close()
            return port
