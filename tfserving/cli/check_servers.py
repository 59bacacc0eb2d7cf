"""What check finds out about servers: versions that they could not load, and ops that they lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tfserving.cli.release_options import ReleaseOptions, connect, list_servers
from tfserving.release.servers import ServerConnections, ServerProcess
from tfserving.repository.diagnostics import Severity
from tfserving.repository.selection import SelectedVersion

# Severity, message, hint.
ServerFinding = tuple[Severity, str, str]


def check_servers(options: ReleaseOptions, selected: Sequence[SelectedVersion]) -> Iterator[ServerFinding]:
    """What prevents the servers of --server from serving these versions.

    Raises:
        TfServingError: a server does not respond, or TensorFlow is not installed.
    """
    servers = list_servers(options)
    with connect(options, servers) as connections:
        for server in servers:
            yield from _find_failed_loads(connections, server, selected)
    yield from _find_missing_ops(servers, selected)


def _find_failed_loads(
    connections: ServerConnections, server: ServerProcess, selected: Sequence[SelectedVersion]
) -> Iterator[ServerFinding]:
    states = connections.states(server, dict.fromkeys(each.model for each in selected))
    for each in selected:
        for status in states[each.model]:
            if status.version == each.version and status.error_message and status.state != "AVAILABLE":
                message = f"{server} could not load {each.model} {each.version}: {status.error_message}"
                yield Severity.ERROR, message, "export it again, or select another version"


def _find_missing_ops(
    servers: Sequence[ServerProcess], selected: Sequence[SelectedVersion]
) -> Iterator[ServerFinding]:
    from tfserving.server.runtime.missing_ops import find_missing_ops

    tensorflow, missing = find_missing_ops(each.path for each in selected)
    for server in servers:
        for each in selected:
            for op in missing[each.path]:
                subject = f"{each.model} {each.version} ({each.path})"
                if server.engine == "embedded":
                    yield Severity.ERROR, f"{server} cannot run {subject}", op.explanation
                elif not op.is_served:
                    # The API of a server does not report its ops.
                    message = (
                        f"{server} can run {subject} only if it has op {op.name!r}, which is not in "
                        f"TensorFlow {tensorflow}"
                    )
                    hint = "export the model with the TensorFlow of the server or an older one"
                    yield Severity.NOTE, message, hint
