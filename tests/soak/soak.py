"""The soak: everything at once, in shifts, with a look at what the server holds after each."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conformance import compare
from tests.embedded import Embedded, embedded
from tests.soak import models
from tests.soak.actors import Actor, at_work
from tests.soak.callers import GrpcCaller, RestCaller
from tests.soak.examiners import Examiner, Watcher
from tests.soak.models import Times
from tests.soak.operators import Editor, Publisher
from tests.soak.record import Record
from tests.soak.strangers import Garbage, Quitter, Refused
from tests.soak.usage import Usage, usage
from tests.soak.wishes import Wish, Wishes
from tfserving.repository import config as models_config
from tfserving.repository.config import All, ModelConfig, ServerConfig
from tfserving.server.batching.parameters import read_parameters

# What the recorded answers of the real server with batching were recorded with.
BATCHING = Path(compare.__file__).with_name("batching.config")

# The first shift warms up: what grows later, grows.
SHIFTS = 3
# Seconds between two lines of progress.
_PROGRESS = 10.0
# Seconds in which a server without callers must have closed their connections and sent threads home.
_IDLE = 60.0

# What an idle server may hold more at the end than after the first shift.
MORE_THREADS = 4
MORE_FILES = 3
MORE_MB = 32.0
MORE_MB_PER_MINUTE = 4.0


@dataclass(frozen=True)
class Options:
    """How to soak.

    Attributes:
        directory: for models, config and logs; empty.
        seconds: in all, without making models and starting.
        callers: of each API.
    """

    directory: Path
    seconds: float = 600.0
    seed: int = 0
    callers: int = 4
    batching: bool = False


def soak(options: Options) -> list[str]:
    """Runs it, showing progress; returns what was wrong."""
    record = Record()
    fleet = Fleet(options.directory)
    flags = fleet.flags(options.batching)
    holds: list[Usage] = []
    with embedded(options.directory / "server.log", *flags) as server:
        print(f"serving; log in {server.log}", flush=True)
        actors = list(_actors(fleet, server, record, options))
        began = time.monotonic()
        for number in range(SHIFTS):
            end = began + options.seconds * (number + 1) / SHIFTS
            with at_work(actors):
                _show_progress(server, record, began, end)
            holds.append(_idle(server, record))
            print(f"idle after shift {number + 1} of {SHIFTS}: {holds[-1]}", flush=True)
            if server.process.poll() is not None:
                break
    _judge(holds, options, record)
    if "Traceback" in server.log.read_text(errors="replace"):
        record.wrong(f"there is a traceback in {server.log}")
    for what, count in sorted(record.counts().items()):
        print(f"{count:9,} {what}")
    return record.faults


class Fleet:
    """Models, their configuration, and what is wished of each. Made on disk at once.

    Beside the models of the conformance cases, and one that is slow: "steady", which nobody touches;
    "swapped-N", whose versions come and go; "edited" and "guest", which the configuration changes.
    """

    def __init__(self, directory: Path, swapped: int = 3) -> None:
        self._directory = directory
        self.file = directory / "models.config"
        zoo = directory / "zoo"
        # in this process, which the recorded cases bring TensorFlow into anyway
        sys.path.insert(0, str(Path(compare.__file__).parent))
        import zoo as conformance_zoo

        conformance_zoo.main(str(zoo))
        models.export(directory)
        self.times = Times(directory)
        versions = {"steady": (1, 2, 3), "edited": range(1, 6), "guest": (7,)}
        versions |= {f"swapped-{number}": (1,) for number in range(swapped)}
        for name, numbers in versions.items():
            for version in numbers:
                self.times.publish(directory / name, version)
        self.swapped = [name for name in versions if name.startswith("swapped")]
        config = models_config.parse((zoo / "models.config").read_text(encoding="utf-8"))
        own = [ModelConfig(name, str(directory / name)) for name in ("edited", "slow", *self.swapped)]
        own.append(ModelConfig("steady", str(directory / "steady"), All(), {"stable": 2}))
        self.config = ServerConfig((*config.models, *own))
        self.file.write_text(models_config.to_text(self.config), encoding="utf-8")
        self.wishes = {name: Wishes(Wish(frozenset({1}))) for name in self.swapped}
        self.wishes["steady"] = Wishes(Wish(frozenset({1, 2, 3}), {"stable": 2}))
        self.wishes["edited"] = Wishes(Wish(frozenset({5})))
        self.wishes["guest"] = Wishes()

    def flags(self, batching: bool) -> list[str]:
        """The server's: everything that can be watched is on."""
        monitoring = self._directory / "monitoring.config"
        monitoring.write_text("prometheus_config { enable: true }\n", encoding="utf-8")
        flags = [
            f"--model_config_file={self.file}",
            "--model_config_file_poll_wait_seconds=1",
            "--file_system_poll_wait_seconds=1",
            "--allow_version_labels_for_unavailable_models=true",
            "--load_retry_interval_micros=300000",
            "--grpc_max_threads=16",
            "--enable_grpc_healthcheck_service=true",
            f"--monitoring_config_file={monitoring}",
            f"--access_log={self._directory / 'access.log'}",
        ]
        if batching:
            flags += ["--enable_batching=true", f"--batching_parameters_file={BATCHING}"]
        return flags


def _actors(fleet: Fleet, server: Embedded, record: Record, options: Options) -> Iterator[Actor]:
    seed = options.seed
    addresses, ports = (server.grpc, server.rest), (server.grpc_port, server.rest_port)
    rows = read_parameters(BATCHING).max_rows if options.batching else 1000
    for number in range(options.callers):
        yield GrpcCaller(f"gRPC {number}", record, seed, server.grpc, fleet.wishes, most_rows=rows)
        yield RestCaller(f"REST {number}", record, seed, server.rest, fleet.wishes, most_rows=rows)
    for number in range(2):
        yield Examiner(f"examiner {number}", record, seed, addresses, batching=options.batching)
        yield Garbage(f"garbage {number}", record, seed, ports)
        yield Quitter(f"quitter {number}", record, seed, *addresses)
    yield Refused("refused", record, seed, server.grpc)
    yield Watcher("watcher", record, seed, addresses, "steady")
    yield Editor("editor", record, seed, server.grpc, fleet.file, fleet.config, fleet.wishes)
    for name in fleet.swapped:
        base_path = fleet.file.parent / name
        yield Publisher(
            f"publisher {name}", record, seed, server.grpc, fleet.times, base_path, fleet.wishes[name]
        )


def _show_progress(server: Embedded, record: Record, began: float, end: float) -> None:
    """Waits until `end` (time.monotonic()), or until the server is gone."""
    due = 0.0
    while (now := time.monotonic()) < end:
        if server.process.poll() is not None:
            record.wrong(f"the server ended with {server.process.returncode}\n{server.tail}")
            return
        if now >= due:
            due = now + _PROGRESS
            counts = record.counts()
            calls = sum(count for what, count in counts.items() if what.startswith(("gRPC", "REST")))
            moves = sum(count for what, count in counts.items() if what.startswith(("publisher", "editor")))
            print(
                f"{now - began:5.0f} s: {calls:,} calls, {moves} changes, {counts.get('faults', 0)} faults; "
                f"{usage(server.process.pid)}",
                flush=True,
            )
        time.sleep(0.2)


def _idle(server: Embedded, record: Record) -> Usage:
    """What the server holds once nobody calls: the least number of files and threads within some seconds."""
    least = usage(server.process.pid)
    end = time.monotonic() + _IDLE
    quiet = time.monotonic()
    while time.monotonic() < end and time.monotonic() - quiet < 2:
        time.sleep(0.2)
        now = usage(server.process.pid)
        if now.files < least.files or now.threads < least.threads:
            quiet = time.monotonic()
        least = Usage(now.rss, min(now.threads, least.threads), min(now.files, least.files))
    return least


def _judge(holds: list[Usage], options: Options, record: Record) -> None:
    """Whether the server grew between the end of the first shift and the end of the last."""
    first, last = holds[0], holds[-1]
    minutes = options.seconds / 60 * (SHIFTS - 1) / SHIFTS
    allowed = Usage(
        first.rss + MORE_MB + MORE_MB_PER_MINUTE * minutes,
        first.threads + MORE_THREADS,
        first.files + MORE_FILES,
    )
    if last.rss > allowed.rss or last.threads > allowed.threads or last.files > allowed.files:
        record.wrong(f"the server grew from {first} to {last}; allowed is {allowed}")
