"""What watches the server, as its flags ask for it: metrics and the access log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from tfserving.errors import ConfigError
from tfserving.server.observability.access_log import AccessLog
from tfserving.server.observability.call_context import Observer
from tfserving.server.observability.metrics import Metrics
from tfserving.server.observability.prometheus_text import CONTENT_TYPE
from tfserving.server.rest.instrumentation import Page
from tfserving.wire import messages

log = logging.getLogger(__name__)

# PrometheusExporter::kPrometheusPath in prometheus_exporter.cc
DEFAULT_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True)
class Observation:
    """Those who watch; what was not asked for is None, and costs nothing.

    Attributes:
        metrics_path: where the REST port shows the metrics.
    """

    metrics: Metrics | None = None
    metrics_path: str = ""
    access_log: AccessLog | None = None

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is to be told of calls."""
        return tuple(filter(None, (self.metrics, self.access_log)))

    @property
    def pages(self) -> tuple[Page, ...]:
        """What the REST port shows."""
        return (Page(self.metrics_path, CONTENT_TYPE, self._text),) if self.metrics else ()

    def close(self) -> None:
        """Writes down what has not been written yet."""
        if self.access_log is not None:
            self.access_log.close()

    def _text(self) -> bytes:
        assert self.metrics is not None
        if self.access_log is not None:
            self.metrics.unlogged.set(self.access_log.dropped)
        return self.metrics.text()


def observation(monitoring_config_file: str = "", access_log: str = "") -> Observation:
    """What the flags of these names ask for.

    Raises:
        ConfigError: the monitoring configuration cannot be read, does not parse, or names no path.
        InvalidInputError: the access log cannot be opened.
    """
    path = _metrics_path(monitoring_config_file) if monitoring_config_file else ""
    return Observation(
        metrics=Metrics() if path else None,
        metrics_path=path,
        access_log=AccessLog(access_log) if access_log else None,
    )


def _metrics_path(file: str) -> str:
    """The path that a MonitoringConfig in text format gives the metrics, "" where it does not enable them."""
    config = messages.MonitoringConfig()
    try:
        text_format.Parse(Path(file).read_text(encoding="utf-8"), config)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigError(f"--monitoring_config_file={file}: {error}") from error
    prometheus = config.prometheus_config
    if not prometheus.enable:
        log.warning("--monitoring_config_file=%s does not enable metrics (prometheus_config.enable)", file)
        return ""
    path = str(prometheus.path) or DEFAULT_PATH
    if not path.startswith("/"):
        raise ConfigError(f"--monitoring_config_file={file}: the path {path!r} must begin with /")
    return path
