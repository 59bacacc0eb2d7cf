"""A fake model server with gRPC and REST in a separate process that tests kill. It prints its ports.

python -m tests.gateway.backend_process VERSION      model "digits": y = x / 2 + VERSION
"""

from __future__ import annotations

import signal
import sys

from tests.client.fakes import FakeRestServer, FakeRpcServer, FakeService, half

if __name__ == "__main__":
    version = int(sys.argv[1])
    service = FakeService({"digits": {version: half(version)}})
    with FakeRpcServer(service) as rpc, FakeRestServer(service) as rest:
        print(rpc.port, rest.port, flush=True)
        signal.pause()
