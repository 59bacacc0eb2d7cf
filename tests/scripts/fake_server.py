"""A model server that only reports the status of models over REST: fake_server.py --rest_api_port=PORT ...

In the directory FAKE_WORLD, `models` is JSON, model → {version: state}, read for each request; version 1
of any other model is AVAILABLE. `server` is "works", "dies" (at startup), "freezes" (SIGSTOP, once it
listens) or "ignores SIGTERM". The server writes its arguments to `argv`, and `log` to its log.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

WORLD = Path(os.environ["FAKE_WORLD"])


def respond(request: str) -> bytes:
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
        print("REST API listening at http://127.0.0.1", flush=True)
        if (WORLD / "server").read_text() == "freezes":
            os.kill(os.getpid(), signal.SIGSTOP)
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("r", newline="\r\n") as lines:
                request = next(lines, "")
                while request and next(lines, "") not in ("", "\r\n"):
                    pass
                if request:  # a check for an open port sends none
                    connection.sendall(respond(request))


def main(argv: list[str]) -> None:
    behaviour = (WORLD / "server").read_text()
    environment = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES",)}
    (WORLD / "argv").write_text(json.dumps({"argv": argv, "environment": environment}))
    print((WORLD / "log").read_text(), flush=True)
    if behaviour == "dies":
        sys.exit("the server logged: no such model")
    if behaviour == "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (port,) = [flag.rpartition("=")[2] for flag in argv if flag.startswith("--rest_api_port=")]
    serve(int(port))


if __name__ == "__main__":
    main(sys.argv[1:])
