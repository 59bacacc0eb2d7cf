"""Callers of servers during changes of models.config, and which versions they may get at each moment."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tfserving.client import Retry, TfRestClient, TfRpcClient

CALLERS = 8  # of each API
PAUSE = 0.005  # seconds between two calls of a caller
ONCE = Retry(attempts=1)

# What calls ask for: no version and no label, the label stable, or one of both labels by weight.
NEITHER, LABEL, SPLIT = "neither", "label", "split"
KINDS = (NEITHER, LABEL, SPLIT, NEITHER)
WEIGHTS = {"stable": 75, "canary": 25}

# For each kind of call, the versions that it may get.
Versions = Mapping[str, set[int]]


@dataclass(frozen=True)
class Call:
    """One call: its kind, when it was, and the version that responded or the error."""

    kind: str
    start: float
    end: float
    version: int | str


class Callers:
    """Eight callers of each API, of all kinds, on all servers in turn.

    Args:
        grpc, rest: the addresses of the servers.
        model: a model that returns its version for 1.
    """

    def __init__(self, grpc: Sequence[str], rest: Sequence[str], model: str) -> None:
        self.calls: list[Call] = []
        self._stopped = threading.Event()
        self._clients: list[Any] = []
        apis = [(TfRpcClient, grpc), (TfRestClient, rest)]
        clients = {
            (api, kind): [self._open(api, address, model, kind) for address in addresses]
            for api, addresses in apis
            for kind in KINDS
        }
        self._threads = [
            threading.Thread(target=self._run, args=(kind, clients[api, kind]))
            for api, _ in apis
            for kind in KINDS * (CALLERS // len(KINDS))
        ]

    def _open(self, api: type, address: str, model: str, kind: str) -> Any:
        split = WEIGHTS if kind == SPLIT else None
        self._clients.append(api(address, model, retry=ONCE, split=split))
        return self._clients[-1]

    def _run(self, kind: str, clients: Sequence[Any]) -> None:
        label = "stable" if kind == LABEL else None
        for client in itertools.cycle(clients):
            if self._stopped.wait(PAUSE):
                return
            start = time.monotonic()
            version: int | str
            try:
                version = round(float(client.infer([1.0], label=label)["y"][0]))
            except Exception as error:  # noqa: BLE001 - every failure counts
                version = repr(error)
            self.calls.append(Call(kind, start, time.monotonic(), version))

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()

    def wait(self, calls: int) -> None:
        """Wait until so many more calls have ended."""
        enough = len(self.calls) + calls
        deadline = time.monotonic() + 60
        while len(self.calls) < enough:
            assert time.monotonic() < deadline
            time.sleep(0.01)


class Allowed:
    """Which versions callers may get, over time.

    Args:
        version: what all get at first.
    """

    def __init__(self, version: int) -> None:
        self._now: Versions = {kind: {version} for kind in KINDS}
        self._log: list[tuple[float, float, Versions]] = []
        self._changes: list[tuple[float, float]] = []
        self._since = time.monotonic()

    @contextmanager
    def change(self, default: int, stable: int, canary: int) -> Iterator[None]:
        """During a change, the versions before and after it are allowed; later only those after it.

        Args:
            default: what callers without version or label get afterwards.
            stable, canary: the versions with these labels afterwards.
        """
        after = {NEITHER: {default}, LABEL: {stable}, SPLIT: {stable, canary}}
        self._enter({kind: self._now[kind] | after[kind] for kind in after})
        begun = self._since
        yield
        self._enter(after)
        self._changes.append((begun, self._since))

    def _enter(self, versions: Versions) -> None:
        now = time.monotonic()
        self._log.append((self._since, now, self._now))
        self._since, self._now = now, versions

    def find_wrong(self, calls: Sequence[Call]) -> list[Call]:
        """The calls that failed, or got a version that was not allowed at any moment of the call."""
        log = [*self._log, (self._since, float("inf"), self._now)]
        return [
            call
            for call in calls
            if not any(
                start <= call.end and call.start <= end and call.version in versions[call.kind]
                for start, end, versions in log
            )
        ]

    def find_p99(self, calls: Sequence[Call], *, changing: bool) -> float:
        """The 99th percentile of the latency in seconds, of the calls during changes or of the others."""
        seconds = sorted(
            call.end - call.start
            for call in calls
            if any(start <= call.end and call.start <= end for start, end in self._changes) == changing
        )
        return seconds[int(0.99 * len(seconds))] if seconds else 0.0
