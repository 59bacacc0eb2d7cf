"""A model server that only tells the status of models by REST: fake_server.py --rest_api_port=PORT ...

In the directory FAKE_WORLD, `models` holds JSON, model → {version: state}, read at every call; what it does
not name is AVAILABLE in version 1. `server` says whether it works, dies at the start or ignores SIGTERM. What
the server was started with is left in `argv`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

WORLD = Path(os.environ["FAKE_WORLD"])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        model = self.path.removeprefix("/v1/models/")
        versions = json.loads((WORLD / "models").read_text()).get(model, {"1": "AVAILABLE"})
        statuses = [
            {"version": version, "state": state, "status": {"error_code": "OK", "error_message": ""}}
            for version, state in versions.items()
        ]
        body = json.dumps({"model_version_status": statuses}, indent=1).encode()
        self.send_response(200 if statuses else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main(argv: list[str]) -> None:
    behaviour = (WORLD / "server").read_text()
    environment = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES",)}
    (WORLD / "argv").write_text(json.dumps({"argv": argv, "environment": environment}))
    if behaviour == "dies":
        sys.exit("what the server logged: no such model")
    if behaviour == "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (port,) = [flag.rpartition("=")[2] for flag in argv if flag.startswith("--rest_api_port=")]
    HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
