"""The servers that a release changes: those that are named, or those that run_tf_serving.sh started.

run_tf_serving.sh leaves labels on its containers and, for embedded servers, files in RUN_DIR
(lib/docker_engine.sh and lib/embedded_engine.sh); both are only read here.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tfserving.client.addresses import parse_address, split_addresses
from tfserving.client.options import DEFAULT_RPC_PORT, Tls
from tfserving.client.rpc_client import TfRpcClient
from tfserving.client.types import VersionStatus
from tfserving.errors import InvalidInputError, NotFoundError, TfServingError, UnavailableError

# Seconds that a docker command and a status request may take.
_DOCKER_SECONDS = 10.0
_STATUS_SECONDS = 5.0

_NO_DAEMON = ("cannot connect to the docker daemon", "is the docker daemon running")
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class ServerProcess:
    """A server of TensorFlow Serving's API.

    Attributes:
        name: CONTAINER_NAME of run_tf_serving.sh; "" for a server that is only known by its address.
        address: host:port of its gRPC API.
        rest: host:port of its REST API; None if it is not known.
        engine: "docker", "embedded", or "" if it is not known.
        config: the models.config on this machine that it reads; None if it reads none, or it is not known.
        problem: why a change of models.config would be lost; "" if it would not, or it is not known.
        polls: whether it polls models.config.
        models_dir: the directory on this machine that it serves from; None if it is not known.
        active_config: the embedded engine's copy of the config in force, which `run_tf_serving.sh status`
            reads; None with the docker engine.
        container_id: the container; "" with the embedded engine.
    """

    name: str
    address: str
    rest: str | None = None
    engine: str = ""
    config: Path | None = None
    problem: str = ""
    polls: bool = False
    models_dir: Path | None = None
    active_config: Path | None = None
    container_id: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.name else self.address


class ServerConnections:
    """Connections to servers, opened with the first request to each; a context manager.

    Args:
        servers: the servers that requests go to.
        tls, metadata: those of `TfRpcClient`, for all of them.
    """

    def __init__(
        self,
        servers: Iterable[ServerProcess],
        *,
        tls: Tls | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.servers = tuple(servers)
        self._tls, self._metadata = tls, metadata or {}
        self._clients: dict[str, TfRpcClient] = {}

    def __enter__(self) -> ServerConnections:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def to(self, servers: Iterable[ServerProcess]) -> ServerConnections:
        """Connections to other servers, with the same TLS and metadata."""
        return ServerConnections(servers, tls=self._tls, metadata=self._metadata)

    def client(self, server: ServerProcess) -> TfRpcClient:
        """The client of one server."""
        if server.address not in self._clients:
            client = TfRpcClient(server.address, tls=self._tls, metadata=self._metadata)
            self._clients[server.address] = client
        return self._clients[server.address]

    def states(
        self, server: ServerProcess, models: Iterable[str], *, timeout: float = _STATUS_SECONDS
    ) -> dict[str, list[VersionStatus]]:
        """The versions of each model that the server knows, newest first; none of a model it does not serve.

        Raises:
            TfServingError: the server does not respond within `timeout` seconds, or rejects the request.
        """
        states: dict[str, list[VersionStatus]] = {}
        for model in models:
            try:
                states[model] = self.client(server).status(model, timeout=timeout)
            except NotFoundError:
                states[model] = []
        return states

    def reload(self, server: ServerProcess, text: str, *, timeout: float) -> None:
        """Make the server use the models.config `text`, in protobuf text format.

        Returns when each model that is new to the server has an available version.

        Raises:
            TfServingError: the server rejects the configuration or does not respond, or a new model is not
                available within `timeout` seconds.
        """
        self.client(server).reload_config(text, timeout=timeout)


def has_responded(error: TfServingError) -> bool:
    """Whether a server sent this error, rather than no response."""
    return error.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def available_versions(states: Iterable[VersionStatus]) -> tuple[int, ...]:
    """The versions that can be called, in ascending order."""
    return tuple(sorted(state.version for state in states if state.state == "AVAILABLE"))


def name_servers(addresses: str | Sequence[str], known: Iterable[ServerProcess] = ()) -> list[ServerProcess]:
    """The servers at `addresses`, with all that is known of those among `known`.

    A server that is not known gets the REST address that run_tf_serving.sh would give it: the next port.

    Raises:
        InvalidInputError: an address is not valid or is given twice.
    """
    by_address = {_canonical(server.address): server for server in known}
    servers: list[ServerProcess] = []
    for part in split_addresses(addresses):
        parsed = parse_address(part, DEFAULT_RPC_PORT)
        address = str(parsed)
        if any(_canonical(server.address) == _canonical(address) for server in servers):
            raise InvalidInputError(f"{address} is given twice; name each server once")
        rest = f"{address.rpartition(':')[0]}:{parsed.port + 1}"
        found = by_address.get(_canonical(address))
        # Under the name that was given: a certificate is valid for that.
        servers.append(replace(found, address=address) if found else ServerProcess("", address, rest))
    return servers


def _canonical(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host == "localhost" else address


def find_servers(run_dir: Path, *, engine: str = "auto") -> list[ServerProcess]:
    """The running servers that run_tf_serving.sh started, by name.

    Args:
        run_dir: RUN_DIR of run_tf_serving.sh, for embedded servers.
        engine: "docker" or "embedded" for those only, "auto" for both.

    Raises:
        UnavailableError: docker does not report which containers run.
    """
    found = [] if engine == "docker" else _find_embedded(run_dir)
    if engine != "embedded":
        found += _find_containers()
    return sorted(found, key=lambda server: server.name)


def _find_embedded(run_dir: Path) -> list[ServerProcess]:
    servers = []
    for file in sorted(run_dir.glob("*.pid")):
        with suppress(OSError):
            arguments = file.with_suffix(".command").read_text().splitlines()
            if _runs(file.read_text().strip(), arguments):
                servers.append(_embedded_server(file, arguments))
    return servers


def _embedded_server(pid_file: Path, arguments: Sequence[str]) -> ServerProcess:
    flags = _read_flags(arguments)
    host = flags.get("host", "")
    config = flags.get("model_config_file")
    models_dir = flags.get("models_dir")
    return ServerProcess(
        name=pid_file.stem,
        address=_join(host, flags.get("port", "")),
        rest=_join(host, flags.get("rest_api_port", "")),
        engine="embedded",
        config=Path(config) if config else None,
        problem="" if config else _serves_one_model(flags.get("model_name", "")),
        polls=_polls(flags),
        models_dir=Path(models_dir) if models_dir else None,
        active_config=pid_file.with_suffix(".config"),
    )


def _runs(pid: str, arguments: Sequence[str]) -> bool:
    """Whether the process still runs that command: process ids are reused."""
    if not pid.isascii() or not pid.isdigit():
        return False
    # `env` sets variables before it executes the server.
    first = next((index for index, word in enumerate(arguments) if word == "-m"), None)
    if first is None:
        return False
    started = arguments[first:]
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
    except OSError:
        if Path("/proc/self").exists():
            return False
        shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", pid], capture_output=True, text=True)
        return shown.stdout.strip().endswith(" ".join(started))
    return line[-len(started) :] == started


def _find_containers() -> list[ServerProcess]:
    listed = _docker("ps", "--filter", "label=tfserving.rest", "--format", "{{.ID}}").split()
    if not listed:
        return []
    containers = json.loads(_docker("container", "inspect", *listed) or "[]")
    return [_container_server(container) for container in containers]


def _docker(*arguments: str) -> str:
    """The output of a docker command; "" where no daemon runs.

    Raises:
        UnavailableError: docker fails for another reason, or does not respond.
    """
    hint = "set ENGINE=embedded to leave containers out, or name the servers with --server"
    try:
        done = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            timeout=_DOCKER_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return ""
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"cannot list containers: {error}; {hint}") from error
    if done.returncode == 0:
        return done.stdout
    message = done.stderr.strip()
    if any(part in message.lower() for part in _NO_DAEMON):
        return ""
    # A container that ended meanwhile; docker printed the others.
    if arguments[0] == "container" and "no such" in message.lower():
        return done.stdout
    raise UnavailableError(f"cannot list containers: {message or 'docker failed'}; {hint}")


def _container_server(container: Mapping[str, Any]) -> ServerProcess:
    labels = container.get("Config", {}).get("Labels") or {}
    mounts = {mount["Destination"]: mount["Source"] for mount in container.get("Mounts", [])}
    flags = _read_flags(container.get("Args") or [])
    inside = labels.get("tfserving.models_config", "")
    config, problem = None, ""
    if labels.get("tfserving.mode") == "single":
        problem = _serves_one_model(labels.get("tfserving.model_name", ""))
    elif not inside:
        problem = (
            "it reads the models.config in its image, so its next start would undo a change; start it with "
            "MODELS_DIR or MODELS_CONFIG set, or build an image with the new config and run "
            "`run_tf_serving.sh update`"
        )
    elif inside in mounts:
        config = Path(mounts[inside])
        problem = (
            "models.config is mounted as a single file, which does not change when the file is replaced; "
            "mount its directory, as run_tf_serving.sh does with MODELS_CONFIG"
        )
    else:
        config = _outside(PurePosixPath(inside), mounts)
    models = mounts.get("/models")
    return ServerProcess(
        name=str(container.get("Name", "")).lstrip("/"),
        address=_client_address(labels.get("tfserving.grpc", "")),
        rest=_client_address(labels.get("tfserving.rest", "")),
        engine="docker",
        config=config,
        problem=problem,
        polls=_polls(flags),
        models_dir=Path(models) if models else None,
        container_id=str(container.get("Id", "")),
    )


def _outside(path: PurePosixPath, mounts: Mapping[str, str]) -> Path | None:
    """The path on this machine of a path in a container; None if it is not mounted."""
    for parent in path.parents:
        if str(parent) in mounts:
            return Path(mounts[str(parent)]) / path.relative_to(parent)
    return None


def _serves_one_model(name: str) -> str:
    return (
        f"it serves model {name or 'MODEL_NAME'} without a models.config; start it with "
        "`run_tf_serving.sh multi`"
    )


def _read_flags(arguments: Iterable[str]) -> dict[str, str]:
    """The values of --NAME=VALUE; of equal names the last, which is the one that the server uses."""
    flags = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and equals:
            flags[name[2:]] = value
    return flags


def _polls(flags: Mapping[str, str]) -> bool:
    return flags.get("model_config_file_poll_wait_seconds", "0").strip("0") != ""


def _join(host: str, port: str) -> str:
    host = _ANY_ADDRESS.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _client_address(published: str) -> str:
    """The address to call of a published port, such as 0.0.0.0:8500 or [::]:8500."""
    host, _, port = published.rpartition(":")
    return _join(host.strip("[]"), port)


def is_same_file(path: Path | None, other: Path) -> bool:
    """Whether two paths, which need not exist, are one file after links are resolved."""
    return path is not None and os.path.realpath(path) == os.path.realpath(other)
