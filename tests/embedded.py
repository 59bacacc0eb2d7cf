"""Runs the embedded server in a subprocess on free ports of 127.0.0.1."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Timeouts in seconds, long enough for a busy machine.
START = 180.0
STOP = 30.0


@dataclass(frozen=True)
class Embedded:
    """A server that listens and has loaded all its models."""

    process: subprocess.Popen[bytes]
    grpc_port: int
    rest_port: int
    log: Path

    @property
    def grpc(self) -> str:
        """HOST:PORT of the gRPC API."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def rest(self) -> str:
        """HOST:PORT of the REST API."""
        return f"127.0.0.1:{self.rest_port}"

    @property
    def tail(self) -> str:
        """The last 40 lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


@contextmanager
def embedded(log: Path, *flags: str) -> Iterator[Embedded]:
    """Run a server for the duration of the context; assert that it exits with 0 after SIGTERM."""
    ports = _free_ports()
    command = [
        sys.executable,
        "-m",
        "tfserving.server",
        "--host=127.0.0.1",
        f"--port={ports[0]}",
        f"--rest_api_port={ports[1]}",
        *flags,
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
    server = Embedded(process, *ports, log)
    try:
        _wait_until_listening(server)
        yield server
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP) == 0, f"the server exited with code {process.returncode}\n{server.tail}"
    finally:
        process.kill()
        process.wait()


def _wait_until_listening(server: Embedded) -> None:
    """Wait for both ports: the server listens once every model is available."""
    deadline = time.monotonic() + START
    for port in (server.grpc_port, server.rest_port):
        while True:
            code = server.process.poll()
            assert code is None, f"the server exited with code {code}\n{server.tail}"
            assert time.monotonic() < deadline, f"the server does not listen after {START:g} s\n{server.tail}"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]
