"""Calls Predict over both APIs all the time, in its own process, and measures how long it waits."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection

import grpc
import numpy as np

from tests.embedded import ROOT
from tfserving.wire import predict, services
from tfserving.wire.model_spec import ModelSpec

# Seconds between two calls over one API.
_PAUSE = 0.01
_TIMEOUT = 60.0


class SecondCaller:
    """Runs this module in a process; use it with `with`.

    Attributes:
        calls: the number of calls that have returned, by API.
        longest: the longest wait in seconds so far, by API.
    """

    def __init__(self, grpc_port: int, rest_port: int) -> None:
        self.calls: dict[str, int] = {}
        self.longest = {"gRPC": 0.0, "REST": 0.0}
        command = [sys.executable, "-m", "tests.fuzz.second_caller", str(grpc_port), str(rest_port)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> SecondCaller:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def measure(self) -> float:
        """Return the longest wait in seconds since the last call of this method.

        Raises:
            AssertionError: a call failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        report = json.loads(self._process.stdout.readline())
        assert not report["errors"], report["errors"]
        self.calls = report["calls"]
        for api, wait in report["longest"].items():
            self.longest[api] = max(self.longest[api], wait)
        return max(report["longest"].values())


class _Caller:
    """Calls over one API in a thread."""

    def __init__(self) -> None:
        self.calls = 0
        self.error = ""
        self._lock = threading.Lock()
        self._longest = 0.0
        self._started: float | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def take_longest(self) -> float:
        """Return the longest wait since the last call of this method, that of a pending call included."""
        with self._lock:
            pending = 0.0 if self._started is None else time.perf_counter() - self._started
            longest, self._longest = max(self._longest, pending), 0.0
            return longest

    def call(self) -> None:
        """Send one request, and check its response."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            while True:
                self._started = time.perf_counter()
                self.call()
                with self._lock:
                    self._longest = max(self._longest, time.perf_counter() - self._started)
                    self._started = None
                self.calls += 1
                time.sleep(_PAUSE)
        except Exception as error:  # noqa: BLE001 - the parent process reports it
            self.error = f"a call failed: {type(error).__name__}: {error}"


class _GrpcCaller(_Caller):
    def __init__(self, port: int) -> None:
        self._predict = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(services.PREDICT.path)
        inputs = {"x": np.array([[6.0]], np.float32)}
        self._request = predict.encode_request(ModelSpec("half_plus_two"), inputs)
        super().__init__()

    def call(self) -> None:
        outputs = predict.decode_response(self._predict(self._request, timeout=_TIMEOUT))[1]
        assert outputs["y"].tolist() == [[5.0]], outputs


class _RestCaller(_Caller):
    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        super().__init__()

    def call(self) -> None:
        self._connection.request("POST", "/v1/models/half_plus_two:predict", '{"instances": [[6.0]]}')
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        assert json.loads(body) == {"predictions": [[5.0]]}, body


def main() -> None:
    """Call until standard input ends; write a report for each line of it."""
    grpc_port, rest_port = map(int, sys.argv[1:])
    callers = {"gRPC": _GrpcCaller(grpc_port), "REST": _RestCaller(rest_port)}
    for _ in sys.stdin:
        report = {
            "longest": {api: caller.take_longest() for api, caller in callers.items()},
            "calls": {api: caller.calls for api, caller in callers.items()},
            "errors": [f"{api}: {caller.error}" for api, caller in callers.items() if caller.error],
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
