"""Functions of TensorFlow's C++ libraries that its Python API does not have.

They are found by their mangled names, so another release of TensorFlow may lack them.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# tsl::port::DenormalState: whether results that are denormal become zero, and whether operands do.
_FLUSH, _KEEP = b"\1\1", b"\0\0"


def disable_xla(tensorflow: Any) -> None:
    """Let every XLA compilation of this process fail, as tensorflow_model_server does (main.cc).

    Args:
        tensorflow: the module.
    """
    disable = _find(tensorflow, "tensorflow_cc", "_ZN10tensorflow21DisableXlaCompilationEv")
    if disable is None:
        log.warning(
            "this TensorFlow cannot disable XLA, so models with jit_compile run without "
            "--xla_cpu_compilation_enabled; tensorflow_model_server rejects their requests"
        )
        return
    disable()


class DenormalFlusher:
    """Context manager that flushes denormal numbers to zero in the calling thread.

    TensorFlow flushes them in its own threads only, and graphs run in the threads of the server.

    Args:
        tensorflow: the module.
    """

    def __init__(self, tensorflow: Any) -> None:
        name = "_ZN3tsl4port16SetDenormalStateERKNS0_13DenormalStateE"
        set_state = _find(tensorflow, "tensorflow_framework", name)
        if set_state is None:
            log.warning("this TensorFlow cannot flush denormal numbers to zero; small results may differ")
            set_state = bool
        else:
            set_state.argtypes = [ctypes.c_char_p]
        self._set_state: Callable[[bytes], object] = set_state

    def __enter__(self) -> None:
        self._set_state(_FLUSH)

    def __exit__(self, *_: object) -> None:
        self._set_state(_KEEP)


def library_path(tensorflow: Any, library: str) -> str:
    """The file of one of TensorFlow's C++ libraries, such as "tensorflow_cc"."""
    suffix = "2.dylib" if sys.platform == "darwin" else "so.2"
    return str(Path(tensorflow.sysconfig.get_lib()) / f"lib{library}.{suffix}")


def _find(tensorflow: Any, library: str, name: str) -> Any:
    """A function of a library that TensorFlow has loaded; None if there is none."""
    try:
        # PyDLL keeps the GIL: releasing it takes longer than these functions
        return getattr(ctypes.PyDLL(library_path(tensorflow, library)), name)
    except (OSError, AttributeError):
        return None
