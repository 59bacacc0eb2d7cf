"""The calls of TensorFlow Serving's gRPC API: each one's path and the messages it takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfserving.wire import messages


@dataclass(frozen=True)
class Method:
    """A unary call of the gRPC API."""

    service: str
    name: str
    request: Any
    response: Any

    @property
    def path(self) -> str:
        """What gRPC calls the method by, e.g. "/tensorflow.serving.PredictionService/Predict"."""
        return f"/{self.service}/{self.name}"


PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

PREDICT = Method(PREDICTION_SERVICE, "Predict", messages.PredictRequest, messages.PredictResponse)
CLASSIFY = Method(
    PREDICTION_SERVICE, "Classify", messages.ClassificationRequest, messages.ClassificationResponse
)
REGRESS = Method(PREDICTION_SERVICE, "Regress", messages.RegressionRequest, messages.RegressionResponse)
MULTI_INFERENCE = Method(
    PREDICTION_SERVICE, "MultiInference", messages.MultiInferenceRequest, messages.MultiInferenceResponse
)
GET_MODEL_METADATA = Method(
    PREDICTION_SERVICE,
    "GetModelMetadata",
    messages.GetModelMetadataRequest,
    messages.GetModelMetadataResponse,
)
GET_MODEL_STATUS = Method(
    MODEL_SERVICE, "GetModelStatus", messages.GetModelStatusRequest, messages.GetModelStatusResponse
)
RELOAD_CONFIG = Method(
    MODEL_SERVICE, "HandleReloadConfigRequest", messages.ReloadConfigRequest, messages.ReloadConfigResponse
)
