"""The methods of TensorFlow Serving's gRPC API with their paths and messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfserving.wire import messages


@dataclass(frozen=True)
class Method:
    """A unary method of the gRPC API; `messages` is the common prefix of its message names."""

    service: str
    name: str
    messages: str

    @property
    def path(self) -> str:
        """The path of the method in gRPC, e.g. "/tensorflow.serving.PredictionService/Predict"."""
        return f"/{self.service}/{self.name}"

    @property
    def request(self) -> Any:
        """The message class of the request."""
        return getattr(messages, f"{self.messages}Request")

    @property
    def response(self) -> Any:
        """The message class of the response."""
        return getattr(messages, f"{self.messages}Response")


PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

PREDICT = Method(PREDICTION_SERVICE, "Predict", "Predict")
CLASSIFY = Method(PREDICTION_SERVICE, "Classify", "Classification")
REGRESS = Method(PREDICTION_SERVICE, "Regress", "Regression")
MULTI_INFERENCE = Method(PREDICTION_SERVICE, "MultiInference", "MultiInference")
GET_MODEL_METADATA = Method(PREDICTION_SERVICE, "GetModelMetadata", "GetModelMetadata")
GET_MODEL_STATUS = Method(MODEL_SERVICE, "GetModelStatus", "GetModelStatus")
RELOAD_CONFIG = Method(MODEL_SERVICE, "HandleReloadConfigRequest", "ReloadConfig")

# The path of the metrics unless the monitoring config has another one: PrometheusExporter::kPrometheusPath in
# prometheus_exporter.cc.
METRICS_PATH = "/monitoring/prometheus/metrics"
