import os
import sys
import threading

import pytest

from tfserving.server.runtime.low_priority import run_at_low_priority


def read_priority(*_):
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_the_function_has_a_lower_priority_and_the_caller_keeps_its_own():
    before = read_priority()
    assert run_at_low_priority(read_priority) > before or before == 19
    assert read_priority() == before


def test_returns_the_result_and_raises_the_error_of_the_function():
    assert run_at_low_priority(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        run_at_low_priority(divmod, 7, 0)
