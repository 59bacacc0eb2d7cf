"""The embedded server with the behavior of tensorflow_model_server 2.20.0 where it is known to differ.

The Docker tests see these differences:

- Flags: an unknown one is printed and ignored. An invalid value prints the usage and exits with 255.
- Signals: there is no handler for SIGTERM and SIGINT, so nothing drains, and PID 1 ignores both.
- Ports: a gRPC port in use is shared. A REST port in use is logged, and the server runs without REST.
- Loads: a version is loaded as soon as its directory exists. Each failed load is retried, and
  the log has the lines of util/retrier.cc and core/loader_harness.cc.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import NoReturn
from unittest import mock

from tfserving.errors import UnavailableError
from tfserving.server import flags, main, ports
from tfserving.server.core import manager
from tfserving.server.core.file_system_source import FileSystemSource
from tfserving.server.grpc import grpc_server

START_FAILED = 255
LOG_LINES = {
    "%s: loading from %s": "Loading servable version {id}",
    "%s: AVAILABLE after %.2f s": "Successfully loaded servable version {id}",
    "%s: loading failed; retry %d of %d in %g s: %s": "Loading servable: {id} failed: {last}",
    "%s: loading failed: %s": "Loading servable: {id} failed: {last}",
}


def known_flags(argv: list[str]) -> list[str]:
    """Print the first argument that is not a flag, as main.cc does, and return the flags."""
    types = {flag.name: type(flag.default) for flag in flags.FLAGS if not flag.own}
    known: list[str] = []
    unknown: list[str] = []
    for argument in argv:
        name, equals, _ = argument.removeprefix("--").partition("=")
        is_flag = argument.startswith("--") and name in types and (equals or types[name] is bool)
        (known if is_flag else unknown).append(argument)
    if unknown:
        print(f"unknown argument: {unknown[0]}\nusage: tensorflow_model_server", flush=True)
    return known


def fail_as_main_cc() -> NoReturn:
    print("usage: tensorflow_model_server", flush=True)
    sys.exit(START_FAILED)


def bind_shared(host: str, port: int) -> socket.socket:
    """Bind a gRPC port, which another server may have bound in the same way."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((host, port))
    return bound


@contextmanager
def bind(host: str, port: int, flag: str) -> Iterator[ports.BoundPort | None]:
    """Reserve a port; None if it is the REST port and in use."""
    with ExitStack() as stack:
        if flag == "port" and port:
            bound = stack.enter_context(bind_shared(host, port))
            yield ports.BoundPort(host, port, flag, (bound,))
            return
        reserved = None
        try:
            reserved = stack.enter_context(ports.bind(host, port, flag))
        except UnavailableError:
            logging.getLogger(__name__).error("Failed to start HTTP Server at localhost:%d", port)
        yield reserved


class ServingFormatter(logging.Formatter):
    """Formats what happens to a servable as tensorflow_model_server does."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, the name of the base class
        line = LOG_LINES.get(str(record.msg))
        if line is None or not isinstance(record.args, tuple):
            return super().formatMessage(record)
        harness = record.args[0]
        servable = f"{{name: {harness.model} version: {harness.version}}}"  # type: ignore[attr-defined]
        return f"{record.levelname[0]} tensorflow_serving] {line.format(id=servable, last=record.args[-1])}"


def run(argv: list[str]) -> int:
    """Run the server; returns only after --version."""
    known = known_flags(argv)
    handler = logging.StreamHandler()
    handler.setFormatter(ServingFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    # The embedded server stops gracefully at these instead.
    unused = SimpleNamespace(SIGTERM=signal.SIGRTMIN, SIGINT=signal.SIGRTMIN + 1)
    parse = grpc_server.parse_channel_arguments
    with (
        mock.patch.object(main, "signal", unused),
        mock.patch.object(main, "bind", bind),
        mock.patch.object(manager, "_PERMANENT", frozenset()),
        mock.patch.object(
            main, "FileSystemSource", lambda directory, settle: FileSystemSource(directory, settle=False)
        ),
        mock.patch.object(
            grpc_server,
            "parse_channel_arguments",
            lambda text, limits: parse(f"grpc.so_reuseport=1,{text}", limits),
        ),
    ):
        try:
            return main.main(known)
        except SystemExit as error:
            if error.code == 2:  # an invalid value
                fail_as_main_cc()
            raise


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
