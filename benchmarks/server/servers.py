"""Runs servers in subprocesses, and makes requests for h2load."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson

from benchmarks.server.benchmark_models import INPUTS
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec

ROOT = Path(__file__).parents[2]

# Seconds in which a server must start or load a version.
_TIMEOUT = 300.0


@dataclass(frozen=True)
class Server:
    """A server that listens. `rest_port` is 0 if it has no REST API."""

    process: subprocess.Popen[bytes]
    grpc_port: int
    rest_port: int = 0

    def wait_until_serving(self, model: str, version: int) -> None:
        """Wait until this version is available and all others are unloaded."""
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            states = self._fetch_states(model)
            if {number: state for number, state in states.items() if state != "END"} == {
                version: "AVAILABLE"
            }:
                return
            time.sleep(0.05)
        raise TimeoutError(f"{model} version {version} is not available after {_TIMEOUT:g} s: {states}")

    def _fetch_states(self, model: str) -> dict[int, str]:
        with contextlib.closing(HTTPConnection("127.0.0.1", self.rest_port, timeout=60)) as connection:
            connection.request("GET", f"/v1/models/{model}")
            found = json.loads(connection.getresponse().read())
        return {int(one["version"]): one["state"] for one in found.get("model_version_status", [])}


@contextlib.contextmanager
def embedded(
    *flags: str, environment: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[Server]:
    """Run the embedded server; all its models are loaded.

    Args:
        environment: variables to set for it.
        log: where it writes its log.
    """
    ports = _free_port(), _free_port()
    command = [
        "-m",
        "tfserving.server",
        "--host=127.0.0.1",
        f"--port={ports[0]}",
        f"--rest_api_port={ports[1]}",
    ]
    with _running([*command, *flags], environment, log) as process:
        _wait_until_listening(process, ports[1], log)
        yield Server(process, *ports)


@contextlib.contextmanager
def minimal(saved_model: Path) -> Iterator[Server]:
    """Run `benchmarks.minimal_server`."""
    port = _free_port()
    with _running(["-m", "benchmarks.minimal_server", str(saved_model), str(port)]) as process:
        _wait_until_listening(process, port)
        yield Server(process, port)


@contextlib.contextmanager
def empty_handler(seconds: float = 0.0) -> Iterator[Server]:
    """Run `benchmarks.bare_server`, which uses the CPU for some seconds before each response."""
    port = _free_port()
    with _running(["-m", "benchmarks.bare_server", str(port), str(seconds)]) as process:
        _wait_until_listening(process, port)
        yield Server(process, port)


@dataclass(frozen=True)
class Request:
    """A request for h2load.

    Attributes:
        body: a file.
        http1: use HTTP/1.1 instead of HTTP/2.
        response_bytes: the size of the body of a successful response.
    """

    url: str
    headers: tuple[str, ...]
    body: Path
    http1: bool
    response_bytes: int


def grpc_request(server: Server, model: str, directory: Path) -> Request:
    """Make a Predict request over gRPC; write its body into the directory."""
    name, shape = INPUTS[model]
    data = predict.encode_request(ModelSpec(model), {name: _random(shape)})
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        response = channel.unary_unary(services.PREDICT.path)(data, timeout=_TIMEOUT)
    body = directory / f"{model}.grpc"
    body.write_bytes(b"\0" + struct.pack(">I", len(data)) + data)
    url = f"http://127.0.0.1:{server.grpc_port}{services.PREDICT.path}"
    return Request(url, ("content-type: application/grpc", "te: trailers"), body, False, len(response) + 5)


def rest_request(server: Server, model: str, directory: Path, *, short: bool = False) -> Request:
    """Make a predict request over HTTP with JSON; write its body into the directory.

    Args:
        short: write the fewest digits that identify a float32, like `TfRestClient`, instead of the digits of
            the same value as a float64, like `json.dumps`.
    """
    _, shape = INPUTS[model]
    values = {"instances": _random(shape) if short else _random(shape).tolist()}
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).decode() if short else json.dumps(values)
    path = f"/v1/models/{model}:predict"
    with contextlib.closing(HTTPConnection("127.0.0.1", server.rest_port, timeout=_TIMEOUT)) as connection:
        connection.request("POST", path, text)
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
    body = directory / f"{model}{'-short' * short}.json"
    body.write_text(text, encoding="utf-8")
    url = f"http://127.0.0.1:{server.rest_port}{path}"
    return Request(url, ("content-type: application/json",), body, True, len(content))


def publish_linked(source: Path, base_path: Path, version: int) -> None:
    """Publish a version with one rename; hard links save the time of a copy."""
    staging = base_path / ".staging"
    shutil.copytree(source, staging, copy_function=os.link)
    staging.rename(base_path / str(version))


def _random(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random(shape, np.float32)


@contextlib.contextmanager
def _running(
    arguments: list[str], environment: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with (
        (log or Path(os.devnull)).open("wb") as output,
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | dict(environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=output,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path | None = None) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            end = log.read_text(errors="replace")[-2000:] if log else ""
            raise RuntimeError(f"{process.args} exited with code {process.returncode}\n{end}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{process.args} does not listen after {_TIMEOUT:g} s")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
