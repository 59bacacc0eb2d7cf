"""Loads and unloads versions until the aspired ones are served, and finds the version for a request."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
from tfserving.server.core.loader_harness import LoaderHarness
from tfserving.server.core.servable import Loader
from tfserving.server.core.servable_state import ServableStatus, State
from tfserving.server.server_options import LoadOptions
from tfserving.wire.model_spec import ModelSpec

log = logging.getLogger(__name__)

# Errors that the same files will cause again: a retry cannot help.
_PERMANENT = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "DATA_LOSS"})


@dataclass(frozen=True)
class _Served:
    """What a model serves at one moment. It is replaced, never changed: requests read it without a lock."""

    versions: Mapping[int, LoaderHarness] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    newest: LoaderHarness | None = None


@dataclass(frozen=True, eq=False)
class _Waiter:
    """Waits for models to become available; see ServableManager.when_available."""

    models: set[str]
    timeout: float | None
    deadline: float
    future: Future[None]


class ServableManager:
    """Owns every version. The owner thread decides and others load and unload; methods are thread-safe.

    Each version that unloads has its own thread: it waits for its requests, and must not delay a load.

    Args:
        load: brings a version into memory; runs in a thread of the load pool.
        options: see LoadOptions.
        clock: monotonic seconds, for retries.
    """

    def __init__(
        self, load: Loader, options: LoadOptions | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._options = options or LoadOptions()
        self._clock = clock
        self._versions: dict[str, dict[int, LoaderHarness]] = {}
        self._labels: dict[str, Mapping[str, int]] = {}
        self._retries: dict[LoaderHarness, float] = {}
        self._served: dict[str, _Served] = {}
        self._waiters: list[_Waiter] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._pool = ThreadPoolExecutor(self._options.threads, thread_name_prefix="load")
        self._owner = threading.Thread(target=self._run, name="manager", daemon=True)

    def start(self) -> None:
        """Starts the owner thread."""
        self._owner.start()

    def stop(self) -> None:
        """Unloads every version once its requests have finished, and ends the threads."""
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
        """Sets the versions of a model that are to be served; {} takes the model out of service.

        A version that failed to load is retried if it is aspired again after it was not, as in
        tensorflow_model_server.

        Args:
            versions: the directory of each version.
            labels: the version of each label; None keeps the current labels.
        """
        with self._changed:
            if self._stopping:
                return
            known = self._versions.setdefault(model, {})
            for version, path in versions.items():
                harness = known.get(version)
                if harness is None or (harness.state is State.END and not harness.aspired):
                    known[version] = LoaderHarness(model, version, path)
            for version, harness in known.items():
                harness.aspired = version in versions
            if labels is not None:
                self._labels[model] = dict(labels)
            self._publish(model)
            self._changed.notify_all()

    def set_labels(self, model: str, labels: Mapping[str, int]) -> None:
        """Replaces the labels of a model; its versions stay as they are."""
        with self._changed:
            if model in self._versions:
                self._labels[model] = dict(labels)
                self._publish(model)

    def models(self) -> set[str]:
        """The names of all models that have ever had aspired versions."""
        with self._changed:
            return set(self._versions)

    def failed_paths(self, model: str) -> set[Path]:
        """The directories of the aspired versions that could not be loaded."""
        with self._changed:
            return {
                harness.path
                for harness in self._versions.get(model, {}).values()
                if harness.aspired and harness.state is State.END and harness.status.error is not None
            }

    def acquire(self, spec: ModelSpec) -> LoaderHarness:
        """Finds the version for a request and pins it; the caller must `unpin` it.

        Raises:
            NotFoundError: the model or the version is not served.
            InvalidInputError: no model is named, or the label does not exist.
        """
        harness = self._find(spec)
        while not harness.pin():
            # It began to unload in between; _served was replaced before that.
            harness = self._find(spec)
        return harness

    def status(self, model: str, version: int | None = None) -> list[ServableStatus]:
        """The states of a model's versions, newest first, including those that ended.

        Raises:
            NotFoundError: the model or the version has never been aspired.
        """
        with self._changed:
            harnesses = self._versions.get(model, {})
            found = [harness.status for _, harness in sorted(harnesses.items(), reverse=True)]
        if version is not None:
            found = [status for status in found if status.version == version]
            if not found and harnesses:
                raise NotFoundError(f"model {model!r} has no version {version}", model=model)
        if not found:
            raise NotFoundError(f"no model {model!r} is configured", model=model)
        return found

    def is_available(self, model: str, version: int | None = None) -> bool:
        """Whether this version, or with None any version, is available."""
        served = self._served.get(model, _NOTHING)
        return version in served.versions if version is not None else served.newest is not None

    def when_available(self, models: Iterable[str], timeout: float | None = None) -> Future[None]:
        """A future for the moment when each model has an available version.

        None of its versions may be loading for the first time then. The future holds no thread. If it is
        cancelled, the wait ends; what loads goes on loading.

        Raises (the future):
            FailedPreconditionError: all aspired versions of a model failed to load.
            DeadlineError: a model had no available version within `timeout` seconds.
            TfServingError: the manager was stopped.
        """
        deadline = math.inf if timeout is None else self._clock() + timeout
        waiter = _Waiter(set(models), timeout, deadline, Future())
        with self._changed:
            if not self._is_done(waiter):
                self._waiters.append(waiter)
                self._changed.notify_all()
        return waiter.future

    def wait_until_available(self, models: Iterable[str], timeout: float | None = None) -> None:
        """As `when_available`, but blocks."""
        self.when_available(models, timeout).result()

    def _is_settled(self, model: str) -> bool:
        aspired = [harness for harness in self._versions.get(model, {}).values() if harness.aspired]
        return any(harness.state is State.AVAILABLE for harness in aspired) and not any(
            harness.state < State.AVAILABLE and not harness.attempts for harness in aspired
        )

    def _raise_if_failed(self, model: str) -> None:
        aspired = [harness for harness in self._versions.get(model, {}).values() if harness.aspired]
        errors = [harness.status.error for harness in aspired]
        # one that ended without an error was aspired again while it unloaded, and is about to be reloaded
        if aspired and all(errors):
            error = errors[-1]
            raise FailedPreconditionError(
                f"model {model!r}: no version could be loaded: {error}", model=model
            ) from error

    def _find(self, spec: ModelSpec) -> LoaderHarness:
        if not spec.name:
            raise InvalidInputError("no model name was given; set model_spec.name")
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

    # The methods below run under self._changed.

    def _run(self) -> None:
        with self._changed:
            while True:
                for model in self._versions:
                    self._advance(model)
                self._waiters = [waiter for waiter in self._waiters if not self._is_done(waiter)]
                if self._stopping and all(harness.state is State.END for harness in self._harnesses()):
                    return
                due = [*self._retries.values(), *(waiter.deadline for waiter in self._waiters)]
                left = min(due, default=math.inf) - self._clock()
                self._changed.wait(None if left == math.inf else max(0.0, left))

    def _is_done(self, waiter: _Waiter) -> bool:
        """Whether a wait has ended; completes its future then."""
        if waiter.future.cancelled():
            return True
        try:
            waiter.models.difference_update([model for model in waiter.models if self._is_settled(model)])
            for model in waiter.models:
                self._raise_if_failed(model)
            names = ", ".join(sorted(waiter.models))
            if waiter.models and self._stopping:
                raise TfServingError(f"the server stopped before {names} was loaded")
            if waiter.models and waiter.deadline <= self._clock():
                raise DeadlineError(f"no version of {names} was available within {waiter.timeout:g} s")
        except TfServingError as error:
            if waiter.future.set_running_or_notify_cancel():
                waiter.future.set_exception(error)
            return True
        if not waiter.models and waiter.future.set_running_or_notify_cancel():
            waiter.future.set_result(None)
        return not waiter.models

    def _harnesses(self) -> list[LoaderHarness]:
        return [harness for versions in self._versions.values() for harness in versions.values()]

    def _advance(self, model: str) -> None:
        """Takes every step that is possible for a model now."""
        harnesses = self._versions[model]
        for version, harness in harnesses.items():
            if harness in self._retries and (not harness.aspired or self._retries[harness] <= self._clock()):
                del self._retries[harness]
                if harness.aspired:
                    self._pool.submit(self._load_one, harness)
                else:
                    harness.end()
            if not harness.aspired and harness.state is State.START:
                harness.end()
            if harness.aspired and harness.state is State.END and harness.status.error is None:
                # aspired again while it was unloading
                harnesses[version] = LoaderHarness(model, version, harness.path)
        while step := next_step(
            Candidate(harness.version, harness.state, harness.aspired) for harness in harnesses.values()
        ):
            harness = harnesses[step.version]
            if isinstance(step, Load):
                harness.start_loading()
                self._pool.submit(self._load_one, harness)
            else:
                harness.start_unloading()
                self._publish(model)
                name = f"unload-{model}-{harness.version}"
                threading.Thread(target=self._unload_one, args=(harness,), name=name, daemon=True).start()

    def _publish(self, model: str) -> None:
        """Replaces what requests see of a model."""
        versions = {
            version: harness
            for version, harness in self._versions[model].items()
            if harness.state is State.AVAILABLE
        }
        newest = versions[max(versions)] if versions else None
        self._served[model] = _Served(versions, self._labels.get(model, {}), newest)

    # The methods below run in the load pool or in an unload thread, without the lock.

    def _load_one(self, harness: LoaderHarness) -> None:
        log.info("%s: loading from %s", harness, harness.path)
        started = self._clock()
        try:
            servable = self._load(harness.model, harness.version, harness.path)
        except TfServingError as error:
            self._handle_load_error(harness, error)
            return
        except Exception as error:
            log.exception("%s: unexpected error", harness)
            self._handle_load_error(
                harness, TfServingError(f"{type(error).__name__}: {error}", code="INTERNAL")
            )
            return
        with self._changed:
            harness.finish_loading(servable)
            self._publish(harness.model)
            self._changed.notify_all()
        log.info("%s: AVAILABLE after %.2f s", harness, self._clock() - started)

    def _handle_load_error(self, harness: LoaderHarness, error: TfServingError) -> None:
        """Schedules a retry if it can help, else ends the version."""
        options = self._options
        with self._changed:
            harness.attempts += 1
            can_retry = harness.attempts <= options.max_retries and error.code not in _PERMANENT
            if can_retry and harness.aspired:
                self._retries[harness] = self._clock() + options.retry_seconds
                log.warning(
                    "%s: loading failed; retry %d of %d in %g s: %s",
                    harness, harness.attempts, options.max_retries, options.retry_seconds, error,
                )  # fmt: skip
            else:
                log.error("%s: loading failed: %s", harness, error)
                # The status keeps the error for good; it must not keep the frames of the load alive.
                error.__traceback__ = error.__cause__ = error.__context__ = None
                harness.end(error)
            self._changed.notify_all()

    def _unload_one(self, harness: LoaderHarness) -> None:
        harness.wait_until_unpinned()
        harness.end()
        log.info("%s: unloaded", harness)
        with self._changed:
            self._changed.notify_all()


_NOTHING = _Served()
