"""Whether a server has loaded a version."""

from __future__ import annotations

from tfserving.errors import RepositoryError
from tfserving.release.servers import ServerConnections

# States of a version that no longer is, or never was, in memory.
_NOT_LOADED = ("START", "END")


def check_not_loaded(connections: ServerConnections, model: str, version: int) -> None:
    """Check that no server has loaded a version.

    Raises:
        RepositoryError: one has.
        TfServingError: a server does not report its versions.
    """
    for server in connections.servers:
        states = {state.version: state.state for state in connections.states(server, [model])[model]}
        if states.get(version, "END") not in _NOT_LOADED:
            raise RepositoryError(
                f"{server} has loaded version {version} of {model} and would not read new warmup "
                "records; publish the model as a new version with warmup records",
                model=model,
            )
