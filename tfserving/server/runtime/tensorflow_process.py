"""TensorFlow in this process: imported once, with the settings that apply to all models."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from tfserving.server.runtime import gc_tuning, native
from tfserving.server.runtime.devices import check_gpus, log_devices
from tfserving.server.server_options import RuntimeOptions


class TensorFlow(NamedTuple):
    """The module, a class of it, and what sets the floating-point mode of a thread."""

    module: Any
    CallableOptions: Any
    flushing_denormals: AbstractContextManager[None]


_importing = threading.Lock()
_imported: list[TensorFlow] = []


def import_tensorflow(options: RuntimeOptions) -> TensorFlow:
    """TensorFlow, which is imported once; the options of the first call count."""
    with _importing:
        if not _imported:
            if options.xla_auto_jit:
                os.environ["TF_XLA_FLAGS"] = auto_jit_flags(options, os.environ.get("TF_XLA_FLAGS", ""))
            with gc_tuning.freeze_objects():
                import tensorflow as tf
                from tensorflow.core.protobuf.config_pb2 import CallableOptions
            if not (options.xla_cpu or options.xla_gpu):
                native.disable_xla(tf)
            _imported.append(TensorFlow(tf, CallableOptions, native.DenormalFlusher(tf)))
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
