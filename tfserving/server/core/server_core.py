"""Keeps what is served in line with the configuration and with what lies on disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tfserving.errors import FailedPreconditionError, TfServingError
from tfserving.repository.config import ServerConfig
from tfserving.server.core.file_system_source import FileSystemSource
from tfserving.server.core.manager import Manager

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PollOptions:
    """How often to look, in seconds.

    Attributes:
        file_system: for new and removed versions; 0 or less looks only at the start.
        config: for a changed config file; 0 never reads it again.
    """

    file_system: float = 1.0
    config: float = 0.0


class ServerCore:
    """Owns the configuration. A thread of its own polls; `reload` may be called from any thread.

    Args:
        manager: what loads and serves; started and stopped by this core.
        source: says which versions are there.
        read_config: gives the configuration to serve, from flags or from the config file.
        labels_for_unavailable: whether a label that is not in use may name a version that is not in service
            yet.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        manager: Manager,
        source: FileSystemSource,
        read_config: Callable[[], ServerConfig],
        *,
        poll: PollOptions | None = None,
        labels_for_unavailable: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._source = source
        self._read_config = read_config
        self._poll = poll or PollOptions()
        self._labels_for_unavailable = labels_for_unavailable
        self._clock = clock
        self._config = ServerConfig()
        self._said = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll_until_stopped, name="poll", daemon=True)

    def start(self) -> None:
        """Loads the configuration; returns when each of its models has a version in service.

        A model without any version keeps it waiting, as it does the real server: the version may yet come.

        Raises:
            TfServingError: the configuration is wrong, or a model cannot be loaded.
        """
        self._manager.start()
        with self._lock:
            new = self._apply(self._read_config())
        self._poller.start()
        self._manager.wait_until_available(new)

    def stop(self) -> None:
        """Ends polling, then takes every version out of service once its calls have finished."""
        self._stop.set()
        if self._poller.ident is not None:
            self._poller.join()
        self._manager.stop()

    def reload(self, config: ServerConfig, timeout: float | None = None) -> None:
        """Replaces the whole configuration; models that it does not name go out of service.

        Returns when each model that was not in the configuration before has a version in service; the others
        are not waited for (ServerCore::AddModelsViaModelConfigList). When one has not, the configuration
        stands all the same, as in the real server.

        Raises:
            FailedPreconditionError: a label for a version that is not in service (see
                `labels_for_unavailable`; nothing is changed then), or a new model that cannot be loaded.
            DeadlineError: a new model had no version to serve within `timeout` seconds.
        """
        with self._lock:
            new = self._apply(config)
        self._manager.wait_until_available(new, timeout)

    def availability(self) -> dict[str, bool]:
        """For each model of the configuration, whether a version of it is in service."""
        return {model.name: self._manager.is_available(model.name) for model in self._config.models}

    def poll_file_system(self) -> None:
        """Looks once for new and removed versions."""
        with self._lock:
            self._aspire(self._config)

    def poll_config(self) -> None:
        """Reads the configuration again and applies what changed; a bad one is logged and left alone."""
        try:
            # what is read must not be applied after a reload that came after it was written
            with self._lock:
                config = self._read_config()
                changed = config != self._config
                if changed:
                    self._apply(config)
            self._said = ""
            if not changed:
                return
            log.info(
                "the configuration changed: %s",
                ", ".join(model.name for model in config.models) or "no model",
            )
        except (TfServingError, OSError) as error:
            self._say(f"the configuration stays as it is: {error}")

    # What follows runs under self._lock.

    def _apply(self, config: ServerConfig) -> set[str]:
        """Makes a configuration the one in force; returns the names of models that are new in it."""
        self._check_labels(config)
        before, now = ({model.name for model in each.models} for each in (self._config, config))
        self._config = config
        self._aspire(config)
        for name in before - now:
            self._manager.aspire(name, {}, {})
        return now - before

    def _aspire(self, config: ServerConfig) -> None:
        for model in config.models:
            versions = self._source.poll(model, self._manager.failed(model.name))
            if versions is None:
                self._manager.label(model.name, model.labels)
            else:
                self._manager.aspire(model.name, versions, model.labels)

    def _check_labels(self, config: ServerConfig) -> None:
        """Callers of a label in use must find a version (ServerCore::UpdateModelVersionLabelMap)."""
        in_use = {model.name: model.labels for model in self._config.models}
        for model in config.models:
            for label, version in model.labels.items():
                now = in_use.get(model.name, {}).get(label, version)
                if self._manager.is_available(model.name, version):
                    continue
                if self._labels_for_unavailable and now == version:
                    continue
                mend = "load it first, and move the label then"
                if now == version:
                    mend = (
                        "load it first, or start the server with "
                        "--allow_version_labels_for_unavailable_models=true"
                    )
                raise FailedPreconditionError(
                    f"label {label!r} of model {model.name!r} names version {version}, which is not in "
                    f"service: {mend}",
                    model=model.name,
                )

    def _poll_until_stopped(self) -> None:
        """Polls when it is time; each kind counts from the end of its last poll."""
        polls: list[tuple[float, Callable[[], None]]] = []
        if self._poll.file_system > 0:
            polls.append((self._poll.file_system, self.poll_file_system))
        if self._poll.config > 0:
            polls.append((self._poll.config, self.poll_config))
        due = {poll: self._clock() + seconds for seconds, poll in polls}
        while polls:
            if self._stop.wait(max(0.0, min(due.values()) - self._clock())):
                return
            for seconds, poll in polls:
                if due[poll] <= self._clock():
                    try:
                        poll()
                    except Exception:
                        log.exception("polling; the next poll is in %g s", seconds)
                    due[poll] = self._clock() + seconds

    def _say(self, text: str) -> None:
        """Logs a thing once, not at every poll."""
        if text != self._said:
            self._said = text
            log.error(text)
