"""The copies of the config in force that `run_tf_serving.sh status` and the health check of the image read.

A server that does not poll keeps the config of its start, so both use a copy of that (docker/entrypoint.sh,
lib/embedded_engine.sh). After a change, the copy must be the new config: otherwise a container from which a
model was removed would become unhealthy.
"""

from __future__ import annotations

import subprocess

from tfserving.release.config_edit import encode_config
from tfserving.release.servers import ServerProcess

_DOCKER_SECONDS = 10.0
_WRITE_COPY = """. /usr/local/bin/server_config.sh && cd "${STATE_DIR:-$(get_state_dir)}" &&
cat >models.config.new && mv -f models.config.new models.config"""


def write_state_copy(server: ServerProcess, text: str) -> str:
    """Replace the copy of a server that run_tf_serving.sh started; returns what failed, "" for nothing."""
    try:
        if server.active_config is not None:
            server.active_config.write_bytes(encode_config(text))
        elif server.container_id:
            command = ["docker", "exec", "--interactive", server.container_id, "bash", "-c", _WRITE_COPY]
            done = subprocess.run(
                command, input=encode_config(text), capture_output=True, timeout=_DOCKER_SECONDS
            )
            if done.returncode != 0:
                return f"the health check of {server} still uses the old config: {done.stderr.decode()!r}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the status of {server} still uses the old config: {error}"
    return ""
