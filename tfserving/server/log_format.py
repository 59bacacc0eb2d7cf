"""The format of the log: one line per message, whatever a caller sent."""

from __future__ import annotations

import logging
import re

# Control characters, line separators, and surrogates, which cannot be encoded.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSAFE_IN_TRACEBACK = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class LogFormatter(logging.Formatter):
    """Escapes what a message could forge another line or a terminal's commands with.

    Messages quote names, paths and errors that callers choose. The lines of a traceback begin with spaces, so
    that none can be taken for a message.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of logging
        record.message = _UNSAFE.sub(_escape, record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - of logging
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "    " + _UNSAFE_IN_TRACEBACK.sub(_escape, text).replace("\n", "\n    ")


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
