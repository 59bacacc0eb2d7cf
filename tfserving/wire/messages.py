"""TensorFlow Serving's messages as protobuf classes, without TensorFlow.

The classes are built from descriptors.pb in a pool of their own, so that they live beside TensorFlow and
tensorflow-serving-api in one process, whichever is imported first.

They, and protobuf itself, are loaded when the first one is asked for: importing a client would take a third
longer. A mypy user sees `Any`: protobuf builds the classes at run time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

_PACKAGES = {
    "tensorflow": ("TensorProto", "TensorShapeProto", "Example", "SignatureDef", "SavedModel"),
    "tensorflow.serving": (
        # PredictionService
        "ModelSpec",
        "PredictRequest",
        "PredictResponse",
        "Input",
        "ClassificationRequest",
        "ClassificationResponse",
        "RegressionRequest",
        "RegressionResponse",
        "MultiInferenceRequest",
        "MultiInferenceResponse",
        "GetModelMetadataRequest",
        "GetModelMetadataResponse",
        "SignatureDefMap",
        # ModelService
        "GetModelStatusRequest",
        "GetModelStatusResponse",
        "ReloadConfigRequest",
        "ReloadConfigResponse",
        # files
        "ModelServerConfig",
        "ModelConfig",
        "BatchingParameters",
        "MonitoringConfig",
        "SSLConfig",
        "PredictionLog",
    ),
}
NAMES = tuple(name for names in _PACKAGES.values() for name in names)

_lock = threading.Lock()
_kept: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    """A message class, or `POOL`, the pool that they are in."""
    with _lock:
        if "POOL" not in globals():
            _load()
    try:
        return globals()[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def _load() -> None:
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    with open(os.path.join(os.path.dirname(__file__), "descriptors.pb"), "rb") as file:
        descriptors = file.read()
    pool = descriptor_pool.DescriptorPool()
    for one in _files(descriptors):
        pool.AddSerializedFile(one)
    for package, names in _PACKAGES.items():
        for name in names:
            message = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
            globals()[name] = message
            _keep(message.DESCRIPTOR, message_factory.GetMessageClass)
    globals().update(POOL=pool, DecodeError=DecodeError)


def _keep(descriptor: Any, class_of: Callable[[Any], Any]) -> None:
    """Hold the classes of a message's fields: before 4.24, protobuf crashes on one that was collected."""
    if descriptor.full_name not in _kept:
        _kept[descriptor.full_name] = class_of(descriptor)
        for field in descriptor.fields:
            if field.message_type is not None:
                _keep(field.message_type, class_of)


def _files(data: bytes) -> Iterator[bytes]:
    """The serialized files of a FileDescriptorSet, which has but one field; its class takes 10 ms."""
    position = 0
    while position < len(data):
        size = shift = 0
        position += 1
        while True:
            byte = data[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield data[position : position + size]
        position += size
