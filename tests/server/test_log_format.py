import logging

import pytest

from tfserving.server.log_format import LogFormatter


def formatted(message, *args, exc_info=None):
    record = logging.LogRecord("", logging.INFO, "", 0, message, args, exc_info)
    return LogFormatter().format(record)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\n2026-01-01 00:00:00.000 INFO forged", r"a\n2026-01-01 00:00:00.000 INFO forged"),
        ("a\r\x1b[2J", r"a\r\x1b[2J"),
        ("\x9b\u2028\ud800", r"\x9b\u2028\ud800"),
        ("é 模型", "é 模型"),
    ],
)
def test_escapes_what_could_forge_a_line(text, escaped):
    assert formatted("model %s", text).endswith(f" INFO model {escaped}")


def test_the_lines_of_a_traceback_begin_with_spaces():
    try:
        raise ValueError("a\n2026-01-01 00:00:00.000 INFO forged\r\udc80")
    except ValueError as error:
        first, *others = formatted("failed", exc_info=(ValueError, error, error.__traceback__)).splitlines()
    assert first.endswith(" INFO failed")
    assert others[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in others)
    assert others[-1] == r"    2026-01-01 00:00:00.000 INFO forged\r\udc80"
