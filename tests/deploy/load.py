"""Requests for the servers that Prometheus scrapes."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tf_rpc_client import TfRpcClient


@contextmanager
def repeated(send: Callable[[], None]) -> Iterator[None]:
    """Call a function in a thread every 20 ms until the context ends; an error of it is raised there."""
    stopping = threading.Event()
    errors: list[Exception] = []

    def run() -> None:
        try:
            while not stopping.wait(0.02):
                send()
        except Exception as error:  # noqa: BLE001 - raised in the thread of the test
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def load(grpc: str, rest: str) -> Iterator[None]:
    """Send valid and invalid requests to the model half, for which 2 is 2, until the context ends.

    Args:
        grpc: HOST:PORT of the gRPC API.
        rest: HOST:PORT of the REST API.
    """

    def send() -> None:
        assert client.infer([2.0])["y"].tolist() == [2.0]
        assert predict(rest, [2.0]) == (200, {"predictions": [2.0]})
        assert predict(rest, ["text"])[0] == 400

    with TfRpcClient(grpc, "half") as client, repeated(send):
        yield


def predict(rest: str, instances: list[object]) -> tuple[int, object]:
    """The HTTP status and the JSON of a REST request."""
    url = f"http://{rest}/v1/models/half:predict"
    try:
        with urllib.request.urlopen(
            url, json.dumps({"instances": instances}).encode(), timeout=30
        ) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
