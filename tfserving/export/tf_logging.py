"""TensorFlow without its chatter."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_LOGGERS = ("tensorflow", "absl")
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[TextIO]:
    """For commands: keeps away what TensorFlow writes to stderr; yields a stream that still gets there.

    Its C++ side logs before any level is set, to the file descriptor, so the descriptor is turned away.
    A user who sets TF_CPP_MIN_LOG_LEVEL wants to see it, and does.
    """
    sys.stderr.flush()
    if os.environ.get(_LEVEL):
        yield sys.stderr
        return
    os.environ[_LEVEL] = "3"
    original = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        with open(original, "w", buffering=1, closefd=False, errors="backslashreplace") as stream:
            yield stream
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
        del os.environ[_LEVEL]


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Lets TensorFlow's Python loggers report nothing below an error while the block runs."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
