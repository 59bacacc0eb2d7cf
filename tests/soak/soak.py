"""Runs all workers against one server in three phases, and measures the idle server after each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from tests import versioned_model
from tests.conformance import compare
from tests.embedded import Embedded, embedded
from tests.process_usage import ProcessUsage, read_usage
from tests.soak.checkers import ConformanceChecker, StatusChecker
from tests.soak.expectations import Expectations, Served
from tests.soak.load_generators import GrpcLoadGenerator, RestLoadGenerator
from tests.soak.malformed_clients import AbandoningClient, InvalidRequestClient, RandomBytesClient
from tests.soak.operators import (
    EDITED_VERSIONS,
    OPTIONAL_VERSION,
    ConfigEditor,
    Publisher,
    model_config,
    server_config,
)
from tests.soak.results import Results
from tests.soak.workers import Worker, running
from tests.versioned_model import VersionedModel
from tfserving.wire import messages

# The parameters with which the batching responses were recorded, and their max_batch_size.
BATCHING_PARAMETERS = Path(compare.__file__).with_name("batching.config")
MAX_BATCH_SIZE = 8

# The first phase warms up: the server may not grow in the later ones.
PHASES = 3
# Seconds between two lines of progress.
_PROGRESS = 10.0
# Seconds in which an idle server must close its connections and end its idle threads.
_IDLE = 60.0

# How much more an idle server may use after the last phase than after the first.
MORE_THREADS = 4
MORE_FILES = 3
MORE_MB = 32.0
MORE_MB_PER_MINUTE = 4.0


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Attributes:
        directory: an empty directory for models, configuration and logs.
        seconds: the length of the three phases together.
        seed: of all random choices.
        load_generators: the number of load generators for each API.
        batching: serve with --enable_batching.
    """

    directory: Path
    seconds: float = 600.0
    seed: int = 0
    load_generators: int = 4
    batching: bool = False


def soak(options: Options) -> list[str]:
    """Run the soak and print its progress; return the failures."""
    results = Results()
    models = SoakModels(options.directory)
    usages: list[ProcessUsage] = []
    with embedded(options.directory / "server.log", *models.flags(options.batching)) as server:
        print(f"serving; log in {server.log}", flush=True)
        workers = list(_make_workers(models, server, results, options))
        began = time.monotonic()
        for phase in range(1, PHASES + 1):
            with running(workers):
                _show_progress(server, results, began, began + options.seconds * phase / PHASES)
            usages.append(_measure_idle(server))
            print(f"idle after phase {phase} of {PHASES}: {usages[-1]}", flush=True)
            if server.process.poll() is not None:
                break
    _check_growth(usages, options, results)
    if "Traceback" in server.log.read_text(errors="replace"):
        results.fail(f"there is a traceback in {server.log}")
    for event, count in sorted(results.counts().items()):
        print(f"{count:9,} {event}")
    return results.failures


class SoakModels:
    """The models of the conformance cases and our own, their configuration, and what is expected of our own.

    "steady" and "slow" do not change. The versions of "swapped-N" do; of "edited" and "optional", the
    configuration does.
    """

    def __init__(self, directory: Path, swapped: int = 3) -> None:
        from tests.conformance import zoo  # it imports TensorFlow

        self._directory = directory
        zoo.main(str(directory / "zoo"))
        versioned_model.export(directory)
        self.model = VersionedModel(directory)
        self.swapped = [f"swapped-{number}" for number in range(swapped)]
        versions = {"steady": (1, 2, 3), "edited": EDITED_VERSIONS, "optional": (OPTIONAL_VERSION,)}
        versions |= dict.fromkeys(self.swapped, (1,))
        for name, numbers in versions.items():
            for version in numbers:
                self.model.publish(directory / name, version)
        zoo_config = text_format.Parse(
            (directory / "zoo" / "models.config").read_text(encoding="utf-8"), messages.ModelServerConfig()
        )
        own = [model_config(name, directory / name) for name in ("edited", "slow", *self.swapped)]
        steady = {"model_version_policy": {"all": {}}, "version_labels": {"stable": 2}}
        own.append(model_config("steady", directory / "steady", **steady))
        self.config = server_config([*zoo_config.model_config_list.config, *own])
        self.file = directory / "models.config"
        self.file.write_text(text_format.MessageToString(self.config), encoding="utf-8")
        self.expectations = {name: Expectations(Served(frozenset({1}))) for name in self.swapped}
        self.expectations["steady"] = Expectations(Served(frozenset({1, 2, 3}), {"stable": 2}))
        self.expectations["edited"] = Expectations(Served(frozenset(EDITED_VERSIONS[-1:])))
        self.expectations["optional"] = Expectations()

    def flags(self, batching: bool) -> list[str]:
        """Return the flags of a server of these models, with everything observable enabled."""
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
            flags += ["--enable_batching=true", f"--batching_parameters_file={BATCHING_PARAMETERS}"]
        return flags


def _make_workers(
    models: SoakModels, server: Embedded, results: Results, options: Options
) -> Iterator[Worker]:
    common = results, options.seed
    addresses, ports = (server.grpc, server.rest), (server.grpc_port, server.rest_port)
    expectations = models.expectations
    rows = MAX_BATCH_SIZE if options.batching else 1000
    for number in range(options.load_generators):
        yield GrpcLoadGenerator(f"gRPC {number}", *common, server.grpc, expectations, max_rows=rows)
        yield RestLoadGenerator(f"REST {number}", *common, server.rest, expectations, max_rows=rows)
    for number in range(2):
        yield ConformanceChecker(f"conformance {number}", *common, addresses, batching=options.batching)
        yield RandomBytesClient(f"random-bytes {number}", *common, ports)
        yield AbandoningClient(f"abandoning {number}", *common, *addresses)
    yield InvalidRequestClient("invalid-requests", *common, server.grpc)
    yield StatusChecker("status", *common, addresses, "steady")
    yield ConfigEditor("editor", *common, server.grpc, models.file, models.config, expectations)
    for name in models.swapped:
        base_path = models.file.parent / name
        yield Publisher(
            f"publisher {name}", *common, server.grpc, models.model, base_path, expectations[name]
        )


def _show_progress(server: Embedded, results: Results, began: float, end: float) -> None:
    """Print progress until `end` (of time.monotonic()), or until the server exits, which is a failure."""
    due = 0.0
    while (now := time.monotonic()) < end:
        if server.process.poll() is not None:
            results.fail(f"the server exited with code {server.process.returncode}\n{server.tail}")
            return
        if now >= due:
            due = now + _PROGRESS
            counts = results.counts()
            requests = sum(count for event, count in counts.items() if event.startswith(("gRPC", "REST")))
            changes = sum(
                count for event, count in counts.items() if event.startswith(("publisher", "editor"))
            )
            print(
                f"{now - began:5.0f} s: {requests:,} requests, {changes} changes, "
                f"{counts.get('failures', 0)} failures; {read_usage(server.process.pid)}",
                flush=True,
            )
        time.sleep(0.2)


def _measure_idle(server: Embedded) -> ProcessUsage:
    """Return memory, and the fewest files and threads, of the server until they stop decreasing."""
    least = read_usage(server.process.pid)
    end = time.monotonic() + _IDLE
    decreased = time.monotonic()
    while time.monotonic() < end and time.monotonic() - decreased < 2:
        time.sleep(0.2)
        now = read_usage(server.process.pid)
        if now.files < least.files or now.threads < least.threads:
            decreased = time.monotonic()
        least = ProcessUsage(now.resident, min(now.threads, least.threads), min(now.files, least.files))
    return least


def _check_growth(usages: list[ProcessUsage], options: Options, results: Results) -> None:
    """Fail if the idle server grew between the ends of the first and the last phase."""
    first, last = usages[0], usages[-1]
    minutes = options.seconds / 60 * (PHASES - 1) / PHASES
    allowed = ProcessUsage(
        first.resident + MORE_MB + MORE_MB_PER_MINUTE * minutes,
        first.threads + MORE_THREADS,
        first.files + MORE_FILES,
    )
    if last.resident > allowed.resident or last.threads > allowed.threads or last.files > allowed.files:
        results.fail(f"the idle server grew from {first} to {last}; allowed is {allowed}")
