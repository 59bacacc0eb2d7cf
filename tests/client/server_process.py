"""A fake server in a separate process that tests kill and stop. It prints its port.

python -m tests.client.server_process PORT [hold]   hold: the second Predict gets no response
"""

from __future__ import annotations

import signal
import sys
import threading

from tests.client.fakes import FakeRpcServer, FakeService


def hold(method: str) -> None:
    """Block the second Predict forever."""
    if method == "Predict" and service.methods.count("Predict") == 2:
        print("held", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    service = FakeService()
    if "hold" in sys.argv:
        service.before = hold
    with FakeRpcServer(service, port=int(sys.argv[1])) as server:
        print(server.port, flush=True)
        signal.pause()
