"""What diff, status and watch share: the servers that they read, and snapshots as text and JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tfserving.cli.connection_options import parse_seconds
from tfserving.cli.release_options import (
    ReleaseOptions,
    add_release_options,
    connect,
    list_servers,
)
from tfserving.errors import UnavailableError
from tfserving.release.served_models import (
    RESPONSE_SECONDS,
    ServedModel,
    ServerSnapshot,
    collect_names,
    take_snapshots,
)
from tfserving.release.servers import ServerConnections, ServerProcess
from tfserving.repository.config import read_models


def add_snapshot_options(parser: argparse.ArgumentParser) -> None:
    """Declare --config, --models-dir, --server, --timeout and --json."""
    add_release_options(parser, "config", "models-dir", "server", "json")
    parser.add_argument(
        "--timeout",
        type=parse_seconds,
        metavar="SECONDS",
        default=RESPONSE_SECONDS,
        help=f"seconds until a server counts as not responding (default: {RESPONSE_SECONDS:g})",
    )


def connect_required(options: ReleaseOptions) -> ServerConnections:
    """Connections to the servers to read.

    Raises:
        UnavailableError: there is none.
        TfServingError: see `list_servers`.
    """
    servers = list_servers(options)
    if not servers:
        raise UnavailableError(
            f"no running server that run_tf_serving.sh started uses {options.config}; "
            "name servers with --server HOST:PORT"
        )
    return connect(options, servers)


def read_snapshots(
    connections: ServerConnections, servers: Sequence[ServerProcess], options: ReleaseOptions
) -> list[ServerSnapshot]:
    """What each server serves of the models in the configuration and in the repository."""
    configured = read_models(options.config)
    names = {server: collect_names(server, configured, options.models_dir) for server in servers}
    return take_snapshots(connections, names, timeout=options.timeout)


def missing_models(snapshot: ServerSnapshot, configured: Sequence[str]) -> list[str]:
    """The configured models of which the server has no available version."""
    served = snapshot.models
    return [name for name in configured if name not in served or served[name].default is None]


def labels_of(model: ServedModel, version: int) -> list[str]:
    """The labels of a version."""
    return [label for label, number in sorted(model.labels.items()) if number == version]


def server_document(server: ServerProcess) -> dict[str, Any]:
    """A server in JSON."""
    return {
        "name": server.name or None,
        "address": server.address,
        "rest_address": server.rest,
        "engine": server.engine or None,
    }


def snapshot_document(snapshot: ServerSnapshot) -> dict[str, Any]:
    """A snapshot in JSON, with the versions that are no longer loaded."""
    models = [
        {
            "name": model.name,
            "default_version": model.default,
            "labels": dict(model.labels),
            "versions": [
                {"version": each.version, "state": each.state, "error": each.error_message or None}
                for each in model.versions
            ],
        }
        for model in snapshot.models.values()
    ]
    return {**server_document(snapshot.server), "error": snapshot.error or None, "models": models}
