"""Carries out what is aspired: loads, serves and unloads versions, and finds the one that a call is for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tfserving.errors import (
    DeadlineError,
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    TfServingError,
)
from tfserving.server.core.availability_policy import Candidate, Load, next_step
from tfserving.server.core.loader_harness import Harness
from tfserving.server.core.servable import Loader
from tfserving.server.core.servable_state import State, VersionStatus
from tfserving.wire.model_spec import ModelSpec

log = logging.getLogger(__name__)

# Errors that the same files will give again: no use in trying once more.
_PERMANENT = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "DATA_LOSS"})


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded.

    Attributes:
        threads: how many versions load at the same time.
        max_retries: how often a failed load is tried again, where trying again can help.
        retry_seconds: how long to wait before that.
    """

    threads: int = 2
    max_retries: int = 5
    retry_seconds: float = 60.0


@dataclass(frozen=True)
class _Served:
    """What a model serves at one moment. Replaced, never changed, so that calls need no lock to read it."""

    versions: Mapping[int, Harness] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    newest: Harness | None = None


class Manager:
    """Owns every version. One thread of its own decides; others load and unload; any thread may ask and call.

    A version that unloads has a thread to itself: it waits for its calls, and must keep no load waiting.

    Args:
        load: brings a version into memory; runs in a thread of the pool.
        options: see LoadOptions.
        clock: monotonic seconds, for retries.
    """

    def __init__(
        self, load: Loader, options: LoadOptions | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._options = options or LoadOptions()
        self._clock = clock
        self._versions: dict[str, dict[int, Harness]] = {}
        self._labels: dict[str, Mapping[str, int]] = {}
        self._retries: dict[Harness, float] = {}
        self._served: dict[str, _Served] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._pool = ThreadPoolExecutor(max(1, self._options.threads), thread_name_prefix="load")
        self._owner = threading.Thread(target=self._run, name="manager", daemon=True)

    def start(self) -> None:
        """Starts the owner thread."""
        self._owner.start()

    def stop(self) -> None:
        """Unloads everything once its calls have finished, and ends the threads."""
        with self._changed:
            self._stopping = True
            for harness in self._harnesses():
                harness.aspired = False
            self._changed.notify_all()
        self._owner.join()
        self._pool.shutdown()

    def aspire(
        self, model: str, versions: Mapping[int, Path], labels: Mapping[str, int] | None = None
    ) -> None:
        """Says which versions of a model shall be served and no others; {} takes the model out of service.

        A version that failed is tried again when it comes back after having been unwanted, as in the real
        server; `labels` None leaves the labels as they are.
        """
        with self._changed:
            if self._stopping:
                return
            known = self._versions.setdefault(model, {})
            for version, path in versions.items():
                harness = known.get(version)
                if harness is None or (harness.state is State.END and not harness.aspired):
                    known[version] = Harness(model, version, path)
            for version, harness in known.items():
                harness.aspired = version in versions
            if labels is not None:
                self._labels[model] = dict(labels)
            self._publish(model)
            self._changed.notify_all()

    def label(self, model: str, labels: Mapping[str, int]) -> None:
        """Replaces the labels of a model, and leaves its versions as they are."""
        with self._changed:
            if model in self._versions:
                self._labels[model] = dict(labels)
                self._publish(model)

    def models(self) -> set[str]:
        """The names of all models that were ever aspired."""
        with self._changed:
            return set(self._versions)

    def failed(self, model: str) -> set[Path]:
        """The directories of those versions that are aspired and could not be loaded."""
        with self._changed:
            return {
                harness.path
                for harness in self._versions.get(model, {}).values()
                if harness.aspired and harness.state is State.END and harness.status.error is not None
            }

    @contextmanager
    def acquire(self, spec: ModelSpec) -> Iterator[Harness]:
        """The version that a call is for, pinned while the block runs.

        Raises:
            NotFoundError: no such model, or no such version in service.
            InvalidInputError: no model is named, or the label is not known.
        """
        harness = self._find(spec)
        while not harness.pin():
            # It began to unload between the look and the pin; what is served was replaced before that.
            harness = self._find(spec)
        try:
            yield harness
        finally:
            harness.unpin()

    def status(self, model: str, version: int | None = None) -> list[VersionStatus]:
        """The states of a model's versions, newest first, those that ended included.

        Raises:
            NotFoundError: no such model or version was ever aspired.
        """
        with self._changed:
            harnesses = self._versions.get(model, {})
            found = [harness.status for _, harness in sorted(harnesses.items(), reverse=True)]
        if version is not None:
            found = [status for status in found if status.version == version]
            if not found and harnesses:
                raise NotFoundError(f"Model {model!r} has no version {version} here", model=model)
        if not found:
            raise NotFoundError(f"No version of a model named {model!r} is known here", model=model)
        return found

    def is_available(self, model: str, version: int | None = None) -> bool:
        """Whether this version, or with None any version, answers calls."""
        served = self._served.get(model, _NOTHING)
        return version in served.versions if version is not None else served.newest is not None

    def wait_until_available(self, models: Iterable[str], timeout: float | None = None) -> None:
        """Blocks until each model has a version in service and none that is loading for the first time.

        Raises:
            FailedPreconditionError: all versions of a model failed to load.
            DeadlineError: a model had no version to serve within `timeout` seconds.
            TfServingError: the manager was stopped.
        """
        waiting = set(models)
        deadline = None if timeout is None else self._clock() + timeout
        with self._changed:
            while True:
                waiting = {model for model in waiting if not self._is_settled(model)}
                for model in waiting:
                    self._raise_if_failed(model)
                if not waiting:
                    return
                if self._stopping:
                    raise TfServingError(f"stopped before {', '.join(sorted(waiting))} could be loaded")
                left = None if deadline is None else deadline - self._clock()
                if left is not None and left <= 0:
                    names = ", ".join(sorted(waiting))
                    raise DeadlineError(f"no version of {names} came into service within {timeout:g} s")
                self._changed.wait(left)

    def _is_settled(self, model: str) -> bool:
        wanted = [harness for harness in self._versions.get(model, {}).values() if harness.aspired]
        return any(harness.state is State.AVAILABLE for harness in wanted) and not any(
            harness.state < State.AVAILABLE and not harness.attempts for harness in wanted
        )

    def _raise_if_failed(self, model: str) -> None:
        wanted = [harness for harness in self._versions.get(model, {}).values() if harness.aspired]
        errors = [harness.status.error for harness in wanted]
        # one that ended without an error was wanted again while it unloaded, and is about to load anew
        if wanted and all(errors):
            error = errors[-1]
            raise FailedPreconditionError(
                f"model {model!r}: no version could be loaded: {error}", model=model
            ) from error

    def _find(self, spec: ModelSpec) -> Harness:
        if not spec.name:
            raise InvalidInputError("the request names no model: set model_spec.name")
        served = self._served.get(spec.name, _NOTHING)
        if spec.label is not None:
            if spec.label not in served.labels:
                raise InvalidInputError(
                    f"model {spec.name!r} has no label {spec.label!r} "
                    f"(labels: {', '.join(sorted(served.labels)) or 'none'})",
                    model=spec.name,
                )
            version: int | None = served.labels[spec.label]
        else:
            version = spec.version
        harness = served.newest if version is None else served.versions.get(version)
        if harness is None:
            what = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
            raise NotFoundError(f"Servable not found for request: {what}", model=spec.name)
        return harness

    # What follows runs under self._changed.

    def _run(self) -> None:
        with self._changed:
            while True:
                for model in self._versions:
                    self._advance(model)
                if self._stopping and all(harness.state is State.END for harness in self._harnesses()):
                    return
                due = min(self._retries.values(), default=None)
                self._changed.wait(None if due is None else max(0.0, due - self._clock()))

    def _harnesses(self) -> list[Harness]:
        return [harness for versions in self._versions.values() for harness in versions.values()]

    def _advance(self, model: str) -> None:
        """Takes every step that can be taken for a model now."""
        harnesses = self._versions[model]
        for version, harness in harnesses.items():
            if harness in self._retries and (not harness.aspired or self._retries[harness] <= self._clock()):
                del self._retries[harness]
                if harness.aspired:
                    self._pool.submit(self._load_one, harness)
                else:
                    harness.end(harness.status.error)
            if not harness.aspired and harness.state is State.START:
                harness.end()
            if harness.aspired and harness.state is State.END and harness.status.error is None:
                # wanted again while it was unloading
                harnesses[version] = Harness(model, version, harness.path)
        while step := next_step(
            Candidate(harness.version, harness.state, harness.aspired) for harness in harnesses.values()
        ):
            harness = harnesses[step.version]
            if isinstance(step, Load):
                harness.loading()
                self._pool.submit(self._load_one, harness)
            else:
                harness.unloading()
                self._publish(model)
                name = f"unload-{model}-{harness.version}"
                threading.Thread(target=self._unload_one, args=(harness,), name=name, daemon=True).start()

    def _publish(self, model: str) -> None:
        """Replaces what calls see of a model."""
        versions = {
            version: harness
            for version, harness in self._versions[model].items()
            if harness.state is State.AVAILABLE
        }
        newest = versions[max(versions)] if versions else None
        self._served[model] = _Served(versions, self._labels.get(model, {}), newest)

    # What follows runs in the pool or, for unloading, in a thread of its own; without the lock.

    def _load_one(self, harness: Harness) -> None:
        name = f"{harness.model} version {harness.version}"
        log.info("loading %s from %s", name, harness.path)
        began = self._clock()
        try:
            servable = self._load(harness.model, harness.version, harness.path)
        except TfServingError as error:
            self._load_failed(harness, error)
            return
        except Exception as error:
            log.exception("loading %s", name)
            self._load_failed(harness, TfServingError(f"{type(error).__name__}: {error}", code="INTERNAL"))
            return
        with self._changed:
            harness.available(servable)
            self._publish(harness.model)
            self._changed.notify_all()
        log.info("%s is AVAILABLE after %.2f s", name, self._clock() - began)

    def _load_failed(self, harness: Harness, error: TfServingError) -> None:
        name = f"{harness.model} version {harness.version}"
        with self._changed:
            harness.attempts += 1
            retry = harness.attempts <= self._options.max_retries and error.code not in _PERMANENT
            if retry and harness.aspired:
                self._retries[harness] = self._clock() + self._options.retry_seconds
                log.warning(
                    "%s cannot be loaded, try %d of %d follows in %g s: %s",
                    name, harness.attempts, self._options.max_retries, self._options.retry_seconds, error,
                )  # fmt: skip
            else:
                log.error("%s cannot be loaded: %s", name, error)
                # the status keeps the error for good, but shall not keep what the frames of the load hold
                error.__traceback__ = error.__cause__ = error.__context__ = None
                harness.end(error)
            self._changed.notify_all()

    def _unload_one(self, harness: Harness) -> None:
        harness.wait_until_unpinned()
        harness.end()
        log.info("%s version %d is unloaded", harness.model, harness.version)
        with self._changed:
            self._changed.notify_all()


_NOTHING = _Served()
