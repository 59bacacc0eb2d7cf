"""Keeps the served models in line with the configuration and the file system."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from tfserving.errors import FailedPreconditionError, TfServingError
from tfserving.repository.config import ServerConfig
from tfserving.server.core.file_system_source import FileSystemSource
from tfserving.server.core.manager import ServableManager
from tfserving.server.server_options import PollOptions

log = logging.getLogger(__name__)


class ServerCore:
    """Owns the configuration and the thread that polls. `reload` may be called from any thread.

    Args:
        manager: loads and serves versions; started and stopped by this object.
        source: finds the versions of a model.
        read_config: reads the configuration, from flags or from the config file.
        labels_for_unavailable: whether a new label may name a version that is not available yet.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        manager: ServableManager,
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
        self._logged = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll_until_stopped, name="poll", daemon=True)

    def start(self) -> None:
        """Loads the configuration; returns when each of its models has an available version.

        As in tensorflow_model_server, it waits for a model without any version: one may still appear.

        Raises:
            TfServingError: the configuration is invalid, or a model cannot be loaded.
        """
        self._manager.start()
        with self._lock:
            new = self._apply(self._read_config())
        self._poller.start()
        self._manager.wait_until_available(new)

    def stop(self) -> None:
        """Stops polling, then unloads every version once its requests have finished."""
        self._stop.set()
        if self._poller.ident is not None:
            self._poller.join()
        self._manager.stop()

    def reload(self, config: ServerConfig, timeout: float | None = None) -> Future[None]:
        """Replaces the whole configuration; models that it does not name are unloaded.

        The future is done when each model that was not in the configuration before has an available version,
        without waiting for the others (ServerCore::AddModelsViaModelConfigList). If a new model fails, or
        the future is cancelled, the new configuration stays in force, as in tensorflow_model_server.

        Raises:
            FailedPreconditionError: a label names a version that is not available (see
                `labels_for_unavailable`); nothing has changed. From the future: a new model cannot be loaded.
            DeadlineError: from the future: a new model had no available version within `timeout` seconds.
        """
        with self._lock:
            new = self._apply(config)
        self._log_models(config)
        return self._manager.when_available(new, timeout)

    def availability(self) -> dict[str, bool]:
        """For each model of the configuration, whether a version of it is available."""
        return {model.name: self._manager.is_available(model.name) for model in self._config.models}

    def poll_file_system(self) -> None:
        """Checks once for new and removed versions."""
        with self._lock:
            self._aspire(self._config)

    def poll_config(self) -> None:
        """Reads the configuration and applies it if it has changed; an invalid one is logged and ignored."""
        try:
            # Under the lock: a file that was read before a reload must not be applied after it.
            with self._lock:
                config = self._read_config()
                changed = config != self._config
                if changed:
                    self._apply(config)
            self._logged = ""
            if changed:
                self._log_models(config)
        except (TfServingError, OSError) as error:
            self._log_once(f"the configuration is not reloaded: {error}")

    # The methods below run under self._lock.

    def _apply(self, config: ServerConfig) -> set[str]:
        """Puts a configuration into force; returns the names of its new models."""
        self._check_labels(config)
        before, now = ({model.name for model in each.models} for each in (self._config, config))
        self._config = config
        self._aspire(config)
        for name in before - now:
            self._manager.aspire(name, {}, {})
        return now - before

    def _aspire(self, config: ServerConfig) -> None:
        for model in config.models:
            versions = self._source.poll(model, self._manager.failed_paths(model.name))
            if versions is None:
                self._manager.set_labels(model.name, model.labels)
            else:
                self._manager.aspire(model.name, versions, model.labels)

    def _check_labels(self, config: ServerConfig) -> None:
        """Checks that labels name available versions (ServerCore::UpdateModelVersionLabelMap)."""
        in_use = {model.name: model.labels for model in self._config.models}
        for model in config.models:
            for label, version in model.labels.items():
                now = in_use.get(model.name, {}).get(label, version)
                if self._manager.is_available(model.name, version):
                    continue
                if self._labels_for_unavailable and now == version:
                    continue
                hint = "load the version before you move the label"
                if now == version:
                    hint = (
                        "load the version first, or start the server with "
                        "--allow_version_labels_for_unavailable_models=true"
                    )
                raise FailedPreconditionError(
                    f"label {label!r} of model {model.name!r} names version {version}, which is not "
                    f"available; {hint}",
                    model=model.name,
                )

    def _poll_until_stopped(self) -> None:
        """Polls both kinds until `stop`; each interval starts at the end of the last poll."""
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
                        log.exception("polling failed; the next poll is in %g s", seconds)
                    due[poll] = self._clock() + seconds

    def _log_models(self, config: ServerConfig) -> None:
        """Logs which models are served from now on; lib/embedded_engine.sh reads this line."""
        names = ", ".join(model.name for model in config.models) or "none"
        log.info("the configuration has changed; models: %s", names)

    def _log_once(self, text: str) -> None:
        """Logs an error unless it is the same as at the last poll."""
        if text != self._logged:
            self._logged = text
            log.error(text)
