"""The engines: each starts a server for a model, on free ports of 127.0.0.1, and stops it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import tfserving
from tfserving.errors import FailedPreconditionError
from tfserving.tune.server_settings import ServerSettings

_HOST = "127.0.0.1"
# Seconds for the requests in flight after SIGTERM, then for docker.
_STOP, _DOCKER = 15.0, 60.0
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
# Lines of a log in an error.
_LOG_LINES = 3
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_XLA_FLAG = "--xla_gpu_compilation_enabled=true"
_BATCHING_PATH = "/etc/tfserving/batching_parameters_file"


@dataclass(frozen=True)
class RunningServer:
    """A server that was started; its model may not be loaded yet.

    Attributes:
        grpc, rest: HOST:PORT of its APIs.
        exit_reason: returns why it does not run any more; "" if it runs.
    """

    grpc: str
    rest: str
    exit_reason: Callable[[], str]


class TuningEngine(Protocol):
    """Starts servers. `queues_requests`: see `SearchSpace`."""

    queues_requests: bool

    def start(self, settings: ServerSettings) -> contextlib.AbstractContextManager[RunningServer]:
        """Start a server with these settings; it is stopped at the end of the context."""


class EmbeddedEngine:
    """The embedded server in a process that ends with this one.

    Args:
        model: name of the model.
        base_path: directory of its versions.
        gpu: GPUs to use, for CUDA_VISIBLE_DEVICES; "" for the default.
    """

    queues_requests = True

    def __init__(self, model: str, base_path: Path, gpu: str = "") -> None:
        self._flags = (f"--model_name={model}", f"--model_base_path={base_path.absolute()}")
        self._gpu = gpu

    @contextmanager
    def start(self, settings: ServerSettings) -> Iterator[RunningServer]:
        """See `TuningEngine`."""
        grpc_port, rest_port = free_ports()
        with tempfile.TemporaryDirectory(prefix="tfserving-") as temporary:
            command = [sys.executable, "-m", "tfserving.server", f"--host={_HOST}"]
            command += [f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
            command += [*self._flags, *settings.flags]
            if settings.auto_jit:
                command += [_XLA_FLAG, "--xla_auto_jit=true"]
            if settings.batching is not None:
                parameters = Path(temporary) / "batching.config"
                parameters.write_text(settings.batching.text)
                command += ["--enable_batching=true", f"--batching_parameters_file={parameters}"]
            log = Path(temporary) / "log"
            process = None
            try:
                # Interrupted inside Popen, the server would run on, and nothing would know its id.
                with log.open("wb") as output, _interrupts_delayed():
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=self._environment(),
                        preexec_fn=_follow_parent,
                    )
                yield RunningServer(
                    f"{_HOST}:{grpc_port}",
                    f"{_HOST}:{rest_port}",
                    partial(_describe_exit, process, log),
                )
            finally:
                if process is not None:
                    _stop(process)

    def _environment(self) -> dict[str, str]:
        package = str(Path(tfserving.__file__).parents[1])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpu} if self._gpu else {}
        return {**os.environ, "PYTHONPATH": path, **gpu}


def _describe_exit(process: subprocess.Popen[bytes], log: Path) -> str:
    code = process.poll()
    if code is None:
        return ""
    return f"the server exited with code {code}: {_last_lines(log.read_text(errors='replace'))}"


@contextmanager
def _interrupts_delayed() -> Iterator[None]:
    """Call the handlers of SIGINT and SIGTERM at the end of the context.

    Blocking the signals is not enough: another thread can receive them, and the handlers still run here.
    """
    received: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()  # only it runs handlers
    before = {number: signal.getsignal(number) for number in _INTERRUPTS if is_main}
    try:
        for number in before:
            signal.signal(number, lambda number, _: received.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def _follow_parent() -> None:
    """In the new process: ignore Ctrl-C, since the parent stops it, and end with the parent (on Linux)."""
    os.setsid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP)
    finally:  # also after a second Ctrl-C
        process.kill()
        process.wait()


def free_ports() -> tuple[int, int]:
    """Two ports of 127.0.0.1 that are free now."""
    with socket.create_server((_HOST, 0)) as one, socket.create_server((_HOST, 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


class DockerEngine:
    """A container of an image that build.sh made, with the model of this machine's disk.

    Args:
        model: name of the model.
        base_path: directory of its versions.
        image: the image.
        name: name of the container; one with this name that a killed process left is removed.
        gpu: GPUs to use; "" for none.

    Raises:
        FailedPreconditionError: docker or the image is not available.
    """

    queues_requests = False

    def __init__(self, model: str, base_path: Path, image: str, name: str, gpu: str = "") -> None:
        self._name = name
        if shutil.which("docker") is None:
            raise FailedPreconditionError("docker is not installed; install it, or use --engine embedded")
        _docker("version", hint="start the daemon, or use --engine embedded")
        _docker(
            "image", "inspect", image, hint=f"build it: MODEL_NAME={model} bash build.sh, or pass --image"
        )
        self._image = image
        self._options = [
            *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--pids-limit", "4096", "--env", f"MODEL_NAME={model}"),
            *("--publish", f"{_HOST}::8500", "--publish", f"{_HOST}::8501"),
            *("--mount", _bind_mount(base_path.resolve(), f"/models/{model}")),
            *(("--gpus", f'"device={gpu}"') if gpu else ()),
        ]

    @contextmanager
    def start(self, settings: ServerSettings) -> Iterator[RunningServer]:
        """See `TuningEngine`."""
        flags, options = list(settings.flags), list(self._options)
        if settings.auto_jit:
            options += ["--env", "TF_XLA_FLAGS=--tf_xla_auto_jit=2"]
            flags.append(_XLA_FLAG)
        with tempfile.TemporaryDirectory(prefix="tfserving-") as temporary:
            if settings.batching is not None:
                parameters = Path(temporary) / "batching.config"
                parameters.write_text(settings.batching.text)
                parameters.chmod(0o644)  # for the user of the image
                options += ["--mount", _bind_mount(parameters, _BATCHING_PATH)]
                flags += ["--enable_batching=true", f"--batching_parameters_file={_BATCHING_PATH}"]
            self._remove()
            try:
                _docker("run", "--detach", "--name", self._name, *options, self._image, *flags)
                yield RunningServer(self._find_port("8500"), self._find_port("8501"), self._describe_exit)
            finally:
                self._remove()

    def _find_port(self, port: str) -> str:
        """HOST:PORT of this machine for a port of the container."""
        template = f'{{{{(index (index .NetworkSettings.Ports "{port}/tcp") 0).HostPort}}}}'
        with contextlib.suppress(FailedPreconditionError):
            return f"{_HOST}:{_docker('inspect', '--format', template, self._name).strip()}"
        return ""  # it has exited

    def _describe_exit(self) -> str:
        state = _docker("inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", self._name).split()
        if state[0] == "true":
            return ""
        return f"the container exited with code {state[1]}: {_last_lines(_docker('logs', self._name))}"

    def _remove(self) -> None:
        with contextlib.suppress(FailedPreconditionError):  # there is none
            _docker("rm", "--force", self._name)


def _docker(*arguments: str, hint: str = "") -> str:
    """What a docker command prints.

    Raises:
        FailedPreconditionError: it failed, or did not end in time.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_DOCKER
        )
    except subprocess.TimeoutExpired as error:
        raise FailedPreconditionError(
            f"docker {arguments[0]} did not finish within {_DOCKER:g} s{hint and f'; {hint}'}"
        ) from error
    printed = done.stdout.decode(errors="replace")
    if done.returncode:
        reason = _last_lines(printed)
        raise FailedPreconditionError(f"docker {arguments[0]} failed: {reason}{hint and f'; {hint}'}")
    return printed


def _bind_mount(source: Path, target: str) -> str:
    """A value of --mount, which docker reads as CSV."""
    field = f"source={source}"
    if "," in field or '"' in field:
        field = '"' + field.replace('"', '""') + '"'
    return f"type=bind,{field},target={target},readonly"


def _last_lines(text: str) -> str:
    lines: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_LOG_LINES:]) or "it printed nothing"


def wait_for(server: RunningServer, seconds: float) -> Iterator[float]:
    """Yield the seconds that are left, as long as the server runs and there are any.

    Raises:
        FailedPreconditionError: the server has exited, or the time is over.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if reason := server.exit_reason():
            raise FailedPreconditionError(reason)
        yield left
    raise FailedPreconditionError(f"the model was not available within {seconds:.0f} s")
