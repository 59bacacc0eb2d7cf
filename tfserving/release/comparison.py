"""Comparison of two versions of a model: their outputs and their latencies for the same samples.

A version on disk runs in a new process, so one that crashes is reported as such. A served version is called
over gRPC, and its latency includes the network.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfserving.client.options import Tls
from tfserving.client.rpc_client import TfRpcClient
from tfserving.errors import InvalidInputError, TfServingError
from tfserving.release.differences import OutputDifference, Tolerance, compare_outputs
from tfserving.repository.completeness import check_version_dir
from tfserving.wire.dtypes import Arrays
from tfserving.wire.signatures import Signature, read_saved_model

if TYPE_CHECKING:
    from tfserving.export.samples import Samples, Shapes
    from tfserving.release.verification import Expectation

# Status codes after which further samples would fail for the same reason.
_LASTING = ("UNAVAILABLE", "NOT_FOUND", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNIMPLEMENTED")
_SHOWN_FAILURES = 3


@dataclass(frozen=True)
class DiskVersion:
    """A version on disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class ServedVersion:
    """A version on a server; without version and label, the one that callers get who name none.

    Attributes:
        address: host:port of the gRPC API.
    """

    address: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        chosen = self.label if self.version is None else str(self.version)
        return self.address if chosen is None else f"{self.address}/{chosen}"


Target = DiskVersion | ServedVersion
Connect = Callable[[str], TfRpcClient]


@dataclass(frozen=True)
class Latency:
    """Latencies of requests, in seconds."""

    requests: int
    median: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency | None:
        """The latency of requests that took these seconds; None without any."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        return cls(len(ordered), statistics.median(ordered), p99)

    def as_json(self) -> dict[str, float]:
        """This as JSON values."""
        return {
            "requests": self.requests,
            "median_ms": round(1000 * self.median, 4),
            "p99_ms": round(1000 * self.p99, 4),
        }


@dataclass
class TargetRun:
    """What one of the two versions did.

    Attributes:
        target: the version.
        responses: for each sample, the outputs by name or the reason why the request failed.
        seconds: the times of the requests that were measured.
        error: why the version could not be run at all; "" if it could.
    """

    target: Target
    responses: list[Arrays | str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def failures(self) -> list[str]:
        """What failed, as sentences that name the version."""
        if self.error:
            return [f"{self.target}: {self.error}"]
        failed = [
            f"{self.target}: sample {number}: {response}"
            for number, response in enumerate(self.responses, start=1)
            if isinstance(response, str)
        ]
        rest = len(failed) - _SHOWN_FAILURES
        return failed[:_SHOWN_FAILURES] + ([f"{self.target}: {rest} more samples fail"] if rest > 0 else [])


@dataclass(frozen=True)
class Comparison:
    """The result of `compare_versions`.

    Attributes:
        model: name of the model.
        signature: the signature that was called.
        samples: number of samples.
        runs: what each version did.
        outputs: the difference of each output, over the samples that both versions answered.
    """

    model: str
    signature: str
    samples: int
    runs: tuple[TargetRun, TargetRun]
    outputs: tuple[OutputDifference, ...]

    @property
    def errors(self) -> list[str]:
        """Why the versions do not match, as sentences; none if they do."""
        failures = [failure for run in self.runs for failure in run.failures]
        differing = [one for one in self.outputs if not one.is_within]
        return failures + [f"output {one.name!r} {one.describe()}" for one in differing]

    @property
    def is_match(self) -> bool:
        """Whether every request succeeded and every output is within its tolerance."""
        return not self.errors

    @property
    def latencies(self) -> tuple[Latency | None, Latency | None]:
        """The latency of each version; None if none was measured."""
        return Latency.of(self.runs[0].seconds), Latency.of(self.runs[1].seconds)

    def as_json(self) -> dict[str, Any]:
        """This as JSON values."""
        versions = [
            {"version": str(run.target), "latency": latency and latency.as_json(), "failures": run.failures}
            for run, latency in zip(self.runs, self.latencies, strict=True)
        ]
        return {
            "model": self.model,
            "signature": self.signature,
            "samples": self.samples,
            "match": self.is_match,
            "first": versions[0],
            "second": versions[1],
            "outputs": [one.as_json() for one in self.outputs],
            "errors": self.errors,
        }


def compare_versions(
    model: str,
    first: Target,
    second: Target,
    *,
    data: Expectation | None = None,
    samples: int = 16,
    shapes: Shapes | None = None,
    signature: str | None = None,
    tolerance: Tolerance | None = None,
    rounds: int = 3,
    timeout: float = 60.0,
    tls: Tls | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Comparison:
    """Send the same samples to two versions, and compare their outputs and latencies.

    The signatures of `first` decide how the samples are read.

    Args:
        model: name of the model.
        first, second: the versions.
        data: inputs: arrays by name, or the path of an .npz file with them, see
            `export.samples.match_samples`. Expected outputs in it are ignored.
        samples: without `data`, the number of random samples.
        shapes: shapes of random samples, see `export.samples.resolve_shape`.
        signature: name of the signature; None for the one that has the inputs, the default one first.
        tolerance: how much the outputs may differ.
        rounds: how often each sample is sent to measure latencies, after the first time, which is not
            measured; 0 to measure none.
        timeout: seconds for each request to a server, and for the process of a version on disk.
        tls, metadata: those of `TfRpcClient`, for versions on servers.

    Returns:
        The comparison. A version that fails or crashes is in its `errors`, not raised.

    Raises:
        InvalidInputError: the samples do not fit the signatures, or `rounds` is negative.
        RepositoryError: a version on disk is missing or incomplete.
        TfServingError: the signatures of `first` cannot be fetched from its server.
    """
    from tfserving.export.samples import load_samples, match_samples, random_samples

    if rounds < 0:
        raise InvalidInputError(f"{rounds} rounds are too few; expected 0 or more")
    arrays = None if data is None else load_samples(data)
    for target in (first, second):
        if isinstance(target, DiskVersion):
            check_version_dir(target.path)
    connect = partial(TfRpcClient, model_name=model, timeout=timeout, tls=tls, metadata=metadata or {})
    signatures = _fetch_signatures(first, connect)
    if arrays is not None:
        chosen = match_samples(signatures, arrays, signature=signature)
    else:
        chosen = random_samples(signatures, samples, signature=signature, shapes=shapes)

    runs = (TargetRun(first), TargetRun(second))
    for run in runs:
        if isinstance(run.target, DiskVersion):
            _run_on_disk(run, run.target.path, chosen, rounds, timeout)
    served = [run for run in runs if isinstance(run.target, ServedVersion)]
    _call_servers(served, connect, chosen, rounds)
    return Comparison(
        model,
        chosen.signature,
        len(chosen.inputs),
        runs,
        _compare_responses(runs, tolerance or Tolerance()),
    )


def _fetch_signatures(target: Target, connect: Connect) -> Mapping[str, Signature]:
    if isinstance(target, DiskVersion):
        return read_saved_model(target.path)
    with connect(target.address) as client:
        return client.metadata(version=target.version, label=target.label)


def _run_on_disk(run: TargetRun, path: Path, samples: Samples, rounds: int, timeout: float) -> None:
    from tfserving.export.replay import run_version

    try:
        result = run_version(
            path, replay=False, requests=samples.encode_requests("model"), rounds=rounds + 1, timeout=timeout
        )
    except TfServingError as error:
        run.error = str(error)
    else:
        run.responses, run.seconds = result.responses, result.seconds


def _call_servers(runs: Sequence[TargetRun], connect: Connect, samples: Samples, rounds: int) -> None:
    """Send every sample to each served version, in rounds that alternate between them."""
    with ExitStack() as stack:
        calls = []
        for run in runs:
            assert isinstance(run.target, ServedVersion)
            client = stack.enter_context(connect(run.target.address))
            calls.append((run, _call_in_rounds(client, run, run.target, samples, rounds)))
        # A generator makes one round at each step, so that a slow phase of the machine affects both.
        for _ in range(rounds + 1):
            for run, steps in calls:
                try:
                    next(steps, None)
                except TfServingError as error:
                    run.error = run.error or str(error)


def _call_in_rounds(
    client: TfRpcClient, run: TargetRun, target: ServedVersion, samples: Samples, rounds: int
) -> Iterator[None]:
    def call(inputs: Arrays) -> Arrays:
        return client.infer(inputs, version=target.version, label=target.label, signature=samples.signature)

    for inputs in samples.inputs:
        try:
            run.responses.append(call(inputs))
        except TfServingError as error:
            if error.code in _LASTING:
                raise
            run.responses.append(str(error))
    yield
    for _ in range(rounds):
        for inputs, response in zip(samples.inputs, run.responses, strict=True):
            if not isinstance(response, str):
                began = time.perf_counter()
                call(inputs)
                run.seconds.append(time.perf_counter() - began)
        yield


def _compare_responses(
    runs: tuple[TargetRun, TargetRun], tolerance: Tolerance
) -> tuple[OutputDifference, ...]:
    if any(run.error for run in runs):
        return ()
    both = [
        (one, other)
        for one, other in zip(runs[0].responses, runs[1].responses, strict=True)
        if not isinstance(one, str) and not isinstance(other, str)
    ]
    return compare_outputs([one for one, _ in both], [other for _, other in both], tolerance)
