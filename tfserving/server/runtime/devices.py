"""The GPUs that TensorFlow found, compared with those that CUDA_VISIBLE_DEVICES names."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tfserving.errors import FailedPreconditionError

log = logging.getLogger(__name__)

# Entries of CUDA_VISIBLE_DEVICES that end the list; without others, they mean no GPU.
_NONE = frozenset({"", "-1", "none", "void", "nodevfiles"})


def check_gpus(visible: str | None, found: Sequence[str]) -> None:
    """Check that TensorFlow found as many GPUs as are named.

    CUDA ignores a GPU that does not exist and all that follow it, and TensorFlow then uses the CPU.

    Args:
        visible: the value of CUDA_VISIBLE_DEVICES; None if it is not set.
        found: the names of the GPUs that TensorFlow found.

    Raises:
        FailedPreconditionError: it found fewer.
    """
    named = _count_named(visible or "")
    if len(found) >= named:
        return
    raise FailedPreconditionError(
        f"CUDA_VISIBLE_DEVICES={visible} names {named} GPU{'s' * (named > 1)}, but TensorFlow found "
        f"{', '.join(found) or 'none'}; set it (in run_tf_serving.sh: GPU) to GPUs that nvidia-smi -L lists. "
        "If it lists these, TensorFlow has no CUDA: run pip install 'tensorflow[and-cuda]'. "
        "CUDA_VISIBLE_DEVICES=-1 serves from the CPU"
    )


def log_devices(gpus: Sequence[str]) -> None:
    """Log the devices on which models run, given the names of the GPUs that TensorFlow found."""
    if gpus:
        log.info("devices: %s", ", ".join(f"GPU:{index} {name}" for index, name in enumerate(gpus)))
    else:
        log.info("devices: CPU, no GPU")


def _count_named(visible: str) -> int:
    entries = [entry.strip() for entry in visible.split(",")]
    ends = [index for index, entry in enumerate(entries) if entry.lower() in _NONE]
    return ends[0] if ends else len(entries)
