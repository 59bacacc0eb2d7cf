"""Whether a server has loaded a version."""

from __future__ import annotations

from collections.abc import Iterable

from tfserving.errors import RepositoryError
from tfserving.release.servers import ServerConnections, ServerProcess

# States of a version that no longer is, or never was, in memory.
_NOT_LOADED = ("START", "END")


def check_not_loaded(servers: Iterable[ServerProcess], model: str, version: int) -> None:
    """Check that no server has loaded a version.

    Raises:
        RepositoryError: one has.
        TfServingError: a server does not report its versions.
    """
    with ServerConnections(servers) as connections:
        for server in connections.servers:
            states = {state.version: state.state for state in connections.states(server, [model])[model]}
            if states.get(version, "END") not in _NOT_LOADED:
                raise RepositoryError(
                    f"{server} has loaded version {version} of {model} and would not read new warmup "
                    "records; publish the model as a new version with warmup records",
                    model=model,
                )
