"""Metrics and the access log, as the flags configure them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from tfserving.errors import ConfigError
from tfserving.repository.config_text import read_text_file
from tfserving.server.observability.access_log import AccessLog
from tfserving.server.observability.metrics import Metrics
from tfserving.server.observability.prometheus_text import CONTENT_TYPE
from tfserving.server.request_context import Observer
from tfserving.server.server_options import ObservabilityOptions
from tfserving.wire import messages
from tfserving.wire.services import METRICS_PATH

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Page:
    """A page of the REST port that is not part of the API; `text` renders it, in a thread."""

    path: str
    content_type: str
    text: Callable[[], bytes]


class Observability:
    """Metrics and the access log; None for one that the options do not enable.

    Attributes:
        page: the metrics, to serve on the REST port.
        observers: to notify of every request.

    Raises:
        ConfigError: the monitoring config file is unreadable or invalid, or the access log cannot be opened.
    """

    def __init__(self, options: ObservabilityOptions) -> None:
        file = options.monitoring_config_file
        path = _read_metrics_path(file) if file else ""
        self.metrics = Metrics() if path else None
        self.page = Page(path, CONTENT_TYPE, self._render_metrics) if path else None
        self.access_log = AccessLog(options.access_log) if options.access_log else None
        self.observers: tuple[Observer, ...] = tuple(filter(None, (self.metrics, self.access_log)))

    def close(self) -> None:
        """Write what the access log has queued."""
        if self.access_log is not None:
            self.access_log.close()

    def _render_metrics(self) -> bytes:
        assert self.metrics is not None
        if self.access_log is not None:
            self.metrics.unlogged.set(self.access_log.dropped)
        return self.metrics.text()


def _read_metrics_path(file: str) -> str:
    """The path of the metrics in a MonitoringConfig in text format; "" if it does not enable them."""
    config = read_text_file(file, messages.MonitoringConfig(), f"--monitoring_config_file={file}")
    prometheus = config.prometheus_config
    if not prometheus.enable:
        log.warning(
            "--monitoring_config_file=%s does not enable metrics; set prometheus_config { enable: true }",
            file,
        )
        return ""
    path = str(prometheus.path) or METRICS_PATH
    if not path.startswith("/"):
        raise ConfigError(f"--monitoring_config_file={file}: path {path!r} does not start with /")
    return path
