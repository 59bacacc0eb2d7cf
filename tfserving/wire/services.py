"""The calls of TensorFlow Serving's gRPC API: each one's path and the messages it takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfserving.wire import messages


@dataclass(frozen=True)
class Method:
    """A unary call of the gRPC API, named as its messages are but for their endings."""

    service: str
    name: str
    messages: str

    @property
    def path(self) -> str:
        """What gRPC calls the method by, e.g. "/tensorflow.serving.PredictionService/Predict"."""
        return f"/{self.service}/{self.name}"

    @property
    def request(self) -> Any:
        """The class of the message that it takes."""
        return getattr(messages, f"{self.messages}Request")

    @property
    def response(self) -> Any:
        """The class of the message that it gives."""
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
