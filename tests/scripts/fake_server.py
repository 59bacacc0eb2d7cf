"""A model server that only tells the status of models by REST: fake_server.py --rest_api_port=PORT ...

In the directory FAKE_WORLD, `models` holds JSON, model → {version: state}, read at every call; what it does
not name is AVAILABLE in version 1. `server` says whether it works, dies at the start or ignores SIGTERM. What
the server was started with is left in `argv`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

WORLD = Path(os.environ["FAKE_WORLD"])


def answer(request: str) -> bytes:
    model = request.split()[1].removeprefix("/v1/models/")
    versions = json.loads((WORLD / "models").read_text()).get(model, {"1": "AVAILABLE"})
    statuses = [
        {"version": version, "state": state, "status": {"error_code": "OK", "error_message": ""}}
        for version, state in versions.items()
    ]
    line = "200 OK" if statuses else "404 Not Found"
    return f"HTTP/1.1 {line}\r\n\r\n{json.dumps({'model_version_status': statuses}, indent=1)}".encode()


def serve(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listening:
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("r", newline="\r\n") as lines:
                request = next(lines, "")
                while request and next(lines, "") not in ("", "\r\n"):
                    pass
                if request:  # who only looks whether the port is open sends none
                    connection.sendall(answer(request))


def main(argv: list[str]) -> None:
    behaviour = (WORLD / "server").read_text()
    environment = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES",)}
    (WORLD / "argv").write_text(json.dumps({"argv": argv, "environment": environment}))
    if behaviour == "dies":
        sys.exit("what the server logged: no such model")
    if behaviour == "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (port,) = [flag.rpartition("=")[2] for flag in argv if flag.startswith("--rest_api_port=")]
    serve(int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
