"""What the commands of a release share: their options, the servers that they name, and output in JSON.

The defaults are those of lib/settings.sh: environment variables of the same names, else paths below the
current directory.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfserving.cli.connection_options import add_security_options, metadata_of, parse_seconds, tls_of
from tfserving.client.options import Tls
from tfserving.errors import InvalidInputError

if TYPE_CHECKING:
    from tfserving.release.servers import ServerConnections, ServerProcess

# Seconds to wait for servers; START_TIMEOUT of run_tf_serving.sh.
_TIMEOUT = 120.0


@dataclass(frozen=True)
class ReleaseOptions:
    """The options that most commands of a release have.

    Attributes:
        config: the models.config.
        models_dir: the model repository.
        run_dir: RUN_DIR of run_tf_serving.sh.
        addresses: --server as given; "" without it.
        timeout: seconds to wait for the servers.
        message: why the change is made, for the history; "" without --message.
        json: whether to print JSON.
        tls, metadata: for connections to servers; see `connection_options`.
    """

    config: Path
    models_dir: Path
    run_dir: Path
    addresses: str
    timeout: float
    message: str
    json: bool
    tls: Tls | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)


def add_release_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Declare some of the options "config", "models-dir", "server", "timeout", "message" and "json"."""
    for name in names:
        _DECLARE[name](parser)


def read_release_options(arguments: argparse.Namespace) -> ReleaseOptions:
    """The options of a command; those that it does not declare have their defaults.

    Raises:
        InvalidInputError: a value is not valid.
    """
    given = vars(arguments)
    models_dir = given.get("models_dir") or Path(os.environ.get("MODELS_DIR") or "models")
    # $MODELS_CONFIG belongs to $MODELS_DIR, not to another directory that is given here.
    config = given.get("config")
    connects = "server" in given
    if config is None and not given.get("models_dir"):
        config = os.environ.get("MODELS_CONFIG")
    return ReleaseOptions(
        config=Path(config) if config else models_dir / "models.config",
        models_dir=models_dir,
        run_dir=Path(os.environ.get("RUN_DIR") or ".run"),
        addresses=given.get("server") or "",
        timeout=given.get("timeout") or _read_timeout(),
        message=given.get("message") or "",
        json=bool(given.get("json")),
        tls=tls_of(arguments) if connects else None,
        metadata=metadata_of(arguments) if connects else {},
    )


def list_servers(options: ReleaseOptions, *, by_models_dir: bool = False) -> list[ServerProcess]:
    """The servers of --server; without it, those that run_tf_serving.sh started with this models.config.

    Args:
        options: the options of the command.
        by_models_dir: also list those that it started with this model repository.

    Raises:
        InvalidInputError: an address is not valid.
        UnavailableError: docker does not report which containers run.
    """
    # Commands that only read the disk do not need gRPC.
    from tfserving.release.servers import is_same_file, name_servers

    known = list_known_servers(options)
    if options.addresses:
        return name_servers(options.addresses, known)
    return [
        server
        for server in known
        if is_same_file(server.config, options.config)
        or (by_models_dir and is_same_file(server.models_dir, options.models_dir))
    ]


def list_known_servers(options: ReleaseOptions) -> list[ServerProcess]:
    """The servers that run_tf_serving.sh started, whatever their models.config; raises as `list_servers`."""
    from tfserving.release.servers import find_servers

    engine = os.environ.get("ENGINE") or "auto"
    if engine not in ("auto", "docker", "embedded"):
        raise InvalidInputError(f"ENGINE={engine} is not a valid engine (auto, docker, embedded)")
    return find_servers(options.run_dir, engine=engine)


def connect(options: ReleaseOptions, servers: Iterable[ServerProcess]) -> ServerConnections:
    """Connections to servers, with the TLS and the token of the command."""
    from tfserving.release.servers import ServerConnections

    return ServerConnections(servers, tls=options.tls, metadata=options.metadata)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def parse_version(text: str) -> int:
    """The number of a version, for argparse."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"{text!r} is not a version number, such as 2")
    return int(text)


def _read_timeout() -> float:
    text = os.environ.get("START_TIMEOUT")
    try:
        return parse_seconds(text) if text else _TIMEOUT
    except argparse.ArgumentTypeError as error:
        raise InvalidInputError(f"START_TIMEOUT={text}: {error}") from error


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the models.config (default: $MODELS_CONFIG, else models.config in the model repository)",
    )


def _add_models_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models-dir",
        type=Path,
        metavar="DIR",
        help="the model repository, /models in a base_path (default: $MODELS_DIR, else models)",
    )


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        metavar="HOST:PORT[,...]",
        help="gRPC addresses of the servers (default: those that run_tf_serving.sh started with this config)",
    )
    add_security_options(parser)


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=parse_seconds,
        metavar="SECONDS",
        help=f"seconds to wait for the servers (default: $START_TIMEOUT, else {_TIMEOUT:g})",
    )


def _add_message(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--message", metavar="TEXT", help="why, for the history of changes")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


_DECLARE = {
    "config": _add_config,
    "models-dir": _add_models_dir,
    "server": _add_server,
    "timeout": _add_timeout,
    "message": _add_message,
    "json": _add_json,
}
