"""An HTTP proxy (proxy.py) in a separate process. It prints its port, and then a line for each request.

python -m tests.client.proxy_process [USER:PASSWORD]

The name tf.example resolves to 127.0.0.1; requests to blocked.example get status 403.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from proxy import Proxy
from proxy.http.exception import HttpRequestRejected
from proxy.http.proxy import HttpProxyBasePlugin


class Report(HttpProxyBasePlugin):
    """Prints "METHOD HOST:PORT" for each request."""

    def before_upstream_connection(self, request: Any) -> Any:
        host = request.host.decode()
        print(request.method.decode(), f"{host}:{request.port}", flush=True)
        if host == "blocked.example":
            raise HttpRequestRejected(status_code=403, reason=b"Forbidden", body=b"not allowed")
        return request

    def resolve_dns(self, host: str, port: int) -> tuple[str | None, None]:
        return ("127.0.0.1" if host == "tf.example" else None), None


if __name__ == "__main__":
    flags = ["--hostname", "127.0.0.1", "--port", "0", "--num-workers", "1", "--num-acceptors", "1"]
    flags += ["--log-level", "ERROR", "--threaded"]
    if len(sys.argv) > 1:
        flags += ["--basic-auth", sys.argv[1]]
    with Proxy(flags, plugins=["tests.client.proxy_process.Report"]) as proxy:
        print(proxy.flags.port, flush=True)
        while True:
            time.sleep(60)
