"""Load for the tests of the gateway: eight callers that check every response."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.gateway.envoy import Gateway
from tfserving.client import TfRpcClient, Tls

CALLERS = 8
WAIT = 120.0


class Load:
    """What the callers saw.

    Attributes:
        versions: the number of responses by the version of the server that sent them.
        failures: errors, and responses that no version sends.
    """

    def __init__(self) -> None:
        self.versions: Counter[int] = Counter()
        self.failures: list[str] = []
        self._progress = threading.Condition()
        self._stopped = threading.Event()

    @property
    def calls(self) -> int:
        return sum(self.versions.values()) + len(self.failures)

    def wait_for(self, calls: int) -> None:
        """Wait until this many more calls are done."""
        with self._progress:
            goal = self.calls + calls
            assert self._progress.wait_for(lambda: self.calls >= goal, WAIT), (
                f"{calls} calls took over {WAIT:g} s"
            )

    def restart(self) -> None:
        """Count from 0 again; failures stay."""
        with self._progress:
            self.versions.clear()

    def share_of(self, version: int) -> float:
        """The percentage of the responses that a version sent."""
        with self._progress:
            return 100 * self.versions[version] / sum(self.versions.values())

    def record(self, call: Callable[[], float]) -> None:
        try:
            value = call()
            failure = None if value in (1.5, 2.5) else f"response {value}"
        except Exception as error:  # noqa: BLE001 - every failure counts
            failure = f"{type(error).__name__}: {error}"
        with self._progress:
            if failure:
                self.failures.append(failure)
            else:
                self.versions[int(value)] += 1
            self._progress.notify_all()

    def run(self, addresses: Sequence[str], tls: Tls, token: str) -> None:
        metadata = {"authorization": f"Bearer {token}"}
        with TfRpcClient(list(addresses), "digits", tls=tls, metadata=metadata) as client:
            while not self._stopped.is_set():
                self.record(lambda: float(client.infer([1.0])["y"][0]))

    def stop(self) -> None:
        self._stopped.set()


@contextmanager
def load(gateways: Sequence[Gateway], token: str) -> Iterator[Load]:
    """Call the gateways from eight threads with the defaults of TfRpcClient until the context ends."""
    running = Load()
    tls = Tls(ca=gateways[0].directory / "tls" / "tls.crt")
    addresses = [gateway.address for gateway in gateways]
    threads = [threading.Thread(target=running.run, args=(addresses, tls, token)) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        running.stop()
        for thread in threads:
            thread.join()
