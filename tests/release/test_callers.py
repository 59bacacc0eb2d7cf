"""Callers of real servers during changes: no call fails, and each response is from an allowed version."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.embedded import Embedded, embedded
from tfserving.cli import dispatch
from tfserving.client import Retry, TfRestClient, TfRpcClient

pytestmark = pytest.mark.tensorflow

CALLERS = 8  # of each API
PAUSE = 0.005  # seconds between two calls of a caller
ONCE = Retry(attempts=1)

CONFIG = """\
model_config_list {{
  config {{ name: "m" base_path: "{0}/m" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 }} }}
    version_labels {{ key: "stable" value: 1 }}
  }}
}}
"""


@dataclass(frozen=True)
class Call:
    """A call without or with the label stable: when it was, and the version that responded or the error."""

    stable: bool
    start: float
    end: float
    version: int | str


class Callers:
    """Eight callers of each API, half of which use the label stable, on all servers in turn."""

    def __init__(self, servers: list[Embedded]) -> None:
        self.calls: list[Call] = []
        self._stopped = threading.Event()
        clients: list[TfRpcClient | TfRestClient] = []
        for server in servers:
            clients.append(TfRpcClient(server.grpc, "m", retry=ONCE))
            clients.append(TfRestClient(server.rest, "m", retry=ONCE))
        self._clients = clients
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(2 * CALLERS)]

    def _run(self, number: int) -> None:
        stable = number % 4 >= 2
        mine = [client for client in self._clients if isinstance(client, TfRpcClient) == (number % 2 == 0)]
        for client in itertools.cycle(mine):
            if self._stopped.wait(PAUSE):
                return
            start = time.monotonic()
            version: int | str
            try:
                version = round(float(client.infer([1.0], label="stable" if stable else None)["y"][0]))
            except Exception as error:  # noqa: BLE001 - every failure counts
                version = repr(error)
            self.calls.append(Call(stable, start, time.monotonic(), version))

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


class Allowed:
    """Which versions callers may get, over time."""

    def __init__(self, version: int) -> None:
        self._now = {False: {version}, True: {version}}
        self._log: list[tuple[float, float, dict[bool, set[int]]]] = []
        self._since = time.monotonic()

    @contextmanager
    def change(self, after: int, stable: int) -> Iterator[None]:
        """During a change, the version before and the one after are allowed; later only that after."""
        self._enter({False: self._now[False] | {after}, True: self._now[True] | {stable}})
        yield
        self._enter({False: {after}, True: {stable}})

    def _enter(self, versions: dict[bool, set[int]]) -> None:
        now = time.monotonic()
        self._log.append((self._since, now, self._now))
        self._since, self._now = now, versions

    def find_wrong(self, calls: list[Call]) -> list[Call]:
        """The calls that failed, or got a version that was not allowed at any moment of the call."""
        log = [*self._log, (self._since, float("inf"), self._now)]
        return [
            call
            for call in calls
            if not any(
                start <= call.end and call.start <= end and call.version in versions[call.stable]
                for start, end, versions in log
            )
        ]

    def find_p99(self, calls: list[Call], *, changing: bool) -> float:
        """The 99th percentile of the latency in seconds, during changes or between them."""
        spans = [(start, end) for start, end, versions in self._log if (len(versions[False]) > 1) == changing]
        seconds = sorted(
            call.end - call.start
            for call in calls
            if any(start <= call.start and call.end <= end for start, end in spans)
        )
        return seconds[int(0.99 * len(seconds))] if seconds else 0.0


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, versioned_model) -> Iterator[list[Embedded]]:
    """Two embedded servers of one models.config."""
    models = tmp_path_factory.mktemp("release")
    for version in (1, 2, 3):
        versioned_model.publish(models / "m", version)
    config = models / "models.config"
    config.write_text(CONFIG.format(models))
    flags = [f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models=true"]
    with ExitStack() as stack:
        yield [stack.enter_context(embedded(models / f"log{number}", *flags)) for number in (1, 2)]


@pytest.mark.parametrize("count", [1, 2], ids=["one server", "two servers"])
def test_no_call_fails_and_each_response_is_from_an_allowed_version(
    servers: list[Embedded], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = servers[-count:]
    models = used[0].log.parent
    monkeypatch.setenv("ENGINE", "embedded")
    monkeypatch.setenv("RUN_DIR", str(models))
    named = ["--models-dir", str(models), "--server", ",".join(server.grpc for server in used)]

    def run(*words: str) -> None:
        assert dispatch.main([*words, *named]) == 0

    allowed = Allowed(1)
    with Callers(used) as callers:
        steady(callers)
        for words, after, stable in (
            (("promote", "m", "2"), 2, 2),
            (("canary", "m", "3", "--labels-in-use"), 3, 2),
            (("rollback", "m"), 2, 2),
            (("promote", "m", "3"), 3, 3),
            (("rollback", "m"), 2, 2),
            (("rollback", "m"), 1, 1),
        ):
            with allowed.change(after, stable):
                run(*words)
            steady(callers)
    assert allowed.find_wrong(callers.calls) == []
    assert {call.version for call in callers.calls} == {1, 2, 3}
    changing, between = (1000 * allowed.find_p99(callers.calls, changing=one) for one in (True, False))
    print(f"{len(callers.calls)} calls, p99 {between:.1f} ms, during changes {changing:.1f} ms")


def steady(callers: Callers, calls: int = 100) -> None:
    """Wait until so many more calls have ended."""
    enough = len(callers.calls) + calls
    deadline = time.monotonic() + 60
    while len(callers.calls) < enough:
        assert time.monotonic() < deadline
        time.sleep(0.01)
