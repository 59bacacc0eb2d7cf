"""The REST status of a model server: fake_server.py PORT FILE.

FILE holds JSON, model → {version: state}; what it does not name is AVAILABLE in version 1. It is read at every call.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        model = self.path.removeprefix("/v1/models/")
        versions = json.loads(Path(sys.argv[2]).read_text()).get(model, {"1": "AVAILABLE"})
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


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
