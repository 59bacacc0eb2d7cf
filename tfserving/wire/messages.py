"""TensorFlow Serving's messages as protobuf classes, without TensorFlow.

The classes are built from descriptors.pb in a private pool. So they do not clash with those of TensorFlow and
tensorflow-serving-api in the same process, whichever is imported first.

To type checkers every name here is `Any`: protobuf builds the classes at run time. `POOL` is their pool.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError as DecodeError

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


_NAMES = {
    "tensorflow": "TensorProto TensorShapeProto Example SignatureDef SavedModel BundleHeaderProto "
    "BundleEntryProto",
    "tensorflow.serving": "ModelSpec PredictRequest PredictResponse Input ClassificationRequest "
    "ClassificationResponse RegressionRequest RegressionResponse MultiInferenceRequest "
    "MultiInferenceResponse GetModelMetadataRequest GetModelMetadataResponse SignatureDefMap "
    "GetModelStatusRequest GetModelStatusResponse ReloadConfigRequest ReloadConfigResponse "
    "ModelServerConfig ModelConfig BatchingParameters MonitoringConfig SSLConfig PredictionLog",
}

# By full name: before 4.24, protobuf crashes on the class of a field that was garbage collected.
_classes: dict[str, Any] = {}


def _make_class(descriptor: Any) -> Any:
    """The class of a message, made together with those of its fields."""
    made = _classes.get(descriptor.full_name)
    if made is None:
        made = _classes[descriptor.full_name] = message_factory.GetMessageClass(descriptor)
        for field in descriptor.fields:
            if field.message_type is not None:
                _make_class(field.message_type)
    return made


POOL = descriptor_pool.DescriptorPool()
with open(os.path.join(os.path.dirname(__file__), "descriptors.pb"), "rb") as _file:
    for _proto in descriptor_pb2.FileDescriptorSet.FromString(_file.read()).file:
        POOL.AddSerializedFile(_proto.SerializeToString())
for _package, _names in _NAMES.items():
    for _name in _names.split():
        globals()[_name] = _make_class(POOL.FindMessageTypeByName(f"{_package}.{_name}"))
