"""TensorFlow in this process: imported once, with the settings that apply to all models."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from tfserving.server.runtime import gc_tuning, native
from tfserving.server.runtime.devices import check_gpus, log_devices
from tfserving.server.runtime.session_graph import SessionGraphs
from tfserving.server.server_options import RuntimeOptions


class TensorFlow(NamedTuple):
    """The module, a class of it, what sets the floating-point mode of a thread, and what loads graphs."""

    module: Any
    CallableOptions: Any
    flushing_denormals: AbstractContextManager[None]
    session_graphs: SessionGraphs


# Whether TensorFlow uses Keras 2 (tf_keras, a separate package) or Keras 3.
_LEGACY_KERAS = "TF_USE_LEGACY_KERAS"

_importing = threading.Lock()
_imported: list[TensorFlow] = []


def import_tensorflow(options: RuntimeOptions) -> TensorFlow:
    """TensorFlow, which is imported once; the options of the first call count."""
    with _importing:
        if not _imported:
            if options.xla_auto_jit:
                os.environ["TF_XLA_FLAGS"] = auto_jit_flags(options, os.environ.get("TF_XLA_FLAGS", ""))
            with gc_tuning.freeze_objects(), _without_keras():
                import tensorflow as tf
                from tensorflow.core.protobuf.config_pb2 import CallableOptions
            if not (options.xla_cpu or options.xla_gpu):
                native.disable_xla(tf)
            _imported.append(TensorFlow(tf, CallableOptions, native.DenormalFlusher(tf), SessionGraphs(tf)))
    return _imported[0]


def auto_jit_flags(options: RuntimeOptions, given: str) -> str:
    """The value of TF_XLA_FLAGS for auto-clustering.

    TensorFlow clusters the operations on GPUs, and with another flag also those on the CPU.

    Args:
        given: the present value, which takes precedence.
    """
    flags = ["--tf_xla_auto_jit=2"]
    if options.xla_cpu:
        flags.append("--tf_xla_cpu_global_jit")
    return " ".join([*flags, given]).strip()


def start_tensorflow(options: RuntimeOptions) -> None:
    """Import TensorFlow, and log the devices that it uses.

    Raises:
        FailedPreconditionError: CUDA_VISIBLE_DEVICES names a GPU that TensorFlow did not find.
    """
    tf = import_tensorflow(options).module
    gpus = [
        str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    check_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), gpus)
    log_devices(gpus)


@contextmanager
def _without_keras() -> Iterator[None]:
    """While TensorFlow is imported: do not import Keras 3 with it, which a server does not need.

    It takes a third of the time and 85 MB. TensorFlow looks for Keras 2 instead, which is
    rarely installed. Code that uses `tf.keras` later gets the version that the environment selects.
    """
    given = os.environ.get(_LEGACY_KERAS)
    os.environ[_LEGACY_KERAS] = "1"
    try:
        yield
    finally:
        if given is None:
            del os.environ[_LEGACY_KERAS]
        else:
            os.environ[_LEGACY_KERAS] = given
