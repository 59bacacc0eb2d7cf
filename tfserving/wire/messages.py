"""TensorFlow Serving's messages as protobuf classes, without TensorFlow.

The classes are built from descriptors.pb in a pool of their own, so that they live beside TensorFlow and
tensorflow-serving-api in one process, whichever is imported first.

A mypy user sees `Any`: protobuf builds the classes at run time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

POOL = descriptor_pool.DescriptorPool()


def _load() -> None:
    data = Path(__file__).with_name("descriptors.pb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        POOL.AddSerializedFile(file.SerializeToString())


# Every class that a message can lead to, by full name. protobuf before 4.25 frees the class of a field when
# nobody holds it, though messages still use it, and then crashes.
_classes: dict[str, Any] = {}


def _class(name: str) -> Any:
    return _class_of(POOL.FindMessageTypeByName(name))


def _class_of(descriptor: Any) -> Any:
    if descriptor.full_name not in _classes:
        _classes[descriptor.full_name] = message_factory.GetMessageClass(descriptor)
        for field in descriptor.fields:
            if field.message_type is not None:
                _class_of(field.message_type)
    return _classes[descriptor.full_name]


_load()

# tensorflow
TensorProto = _class("tensorflow.TensorProto")
TensorShapeProto = _class("tensorflow.TensorShapeProto")
Example = _class("tensorflow.Example")
SignatureDef = _class("tensorflow.SignatureDef")
SavedModel = _class("tensorflow.SavedModel")

# tensorflow.serving: PredictionService
ModelSpec = _class("tensorflow.serving.ModelSpec")
PredictRequest = _class("tensorflow.serving.PredictRequest")
PredictResponse = _class("tensorflow.serving.PredictResponse")
Input = _class("tensorflow.serving.Input")
ClassificationRequest = _class("tensorflow.serving.ClassificationRequest")
ClassificationResponse = _class("tensorflow.serving.ClassificationResponse")
RegressionRequest = _class("tensorflow.serving.RegressionRequest")
RegressionResponse = _class("tensorflow.serving.RegressionResponse")
MultiInferenceRequest = _class("tensorflow.serving.MultiInferenceRequest")
MultiInferenceResponse = _class("tensorflow.serving.MultiInferenceResponse")
GetModelMetadataRequest = _class("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = _class("tensorflow.serving.GetModelMetadataResponse")
SignatureDefMap = _class("tensorflow.serving.SignatureDefMap")

# tensorflow.serving: ModelService
GetModelStatusRequest = _class("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = _class("tensorflow.serving.GetModelStatusResponse")
ReloadConfigRequest = _class("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = _class("tensorflow.serving.ReloadConfigResponse")

# tensorflow.serving: files
ModelServerConfig = _class("tensorflow.serving.ModelServerConfig")
ModelConfig = _class("tensorflow.serving.ModelConfig")
BatchingParameters = _class("tensorflow.serving.BatchingParameters")
MonitoringConfig = _class("tensorflow.serving.MonitoringConfig")
SSLConfig = _class("tensorflow.serving.SSLConfig")
PredictionLog = _class("tensorflow.serving.PredictionLog")
