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


_PREDICTION = "tensorflow.serving.PredictionService"
_MODEL = "tensorflow.serving.ModelService"

PREDICT = Method(_PREDICTION, "Predict", messages.PredictRequest, messages.PredictResponse)
CLASSIFY = Method(_PREDICTION, "Classify", messages.ClassificationRequest, messages.ClassificationResponse)
REGRESS = Method(_PREDICTION, "Regress", messages.RegressionRequest, messages.RegressionResponse)
MULTI_INFERENCE = Method(
    _PREDICTION, "MultiInference", messages.MultiInferenceRequest, messages.MultiInferenceResponse
)
GET_MODEL_METADATA = Method(
    _PREDICTION, "GetModelMetadata", messages.GetModelMetadataRequest, messages.GetModelMetadataResponse
)
GET_MODEL_STATUS = Method(
    _MODEL, "GetModelStatus", messages.GetModelStatusRequest, messages.GetModelStatusResponse
)
RELOAD_CONFIG = Method(
    _MODEL, "HandleReloadConfigRequest", messages.ReloadConfigRequest, messages.ReloadConfigResponse
)
