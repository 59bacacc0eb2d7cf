import gc
import weakref

from tfserving.server.runtime import gc_tuning
from tfserving.server.runtime.gc_tuning import Collector


class Timers:
    """Timers that run when they are told to."""

    def __init__(self):
        self.due = []

    def __call__(self, seconds, function):
        self._function = function
        return self

    def start(self):
        assert self.daemon
        self.due.append(self._function)

    def run(self):
        due, self.due = self.due, []
        for function in due:
            function()


class Cycle:
    def __init__(self):
        self.self = self


def test_garbage_is_collected_once_for_all_and_not_at_once():
    timers = Timers()
    collector = Collector(timer=timers)
    for _ in range(2):
        garbage = weakref.ref(Cycle())
        gc.disable()
        try:
            collector.tell()
            collector.tell()
            assert garbage() is not None
            assert len(timers.due) == 1
            timers.run()
            assert garbage() is None
        finally:
            gc.enable()


def test_what_lasts_is_not_looked_at():
    before = gc.get_freeze_count()
    with gc_tuning.lasting():
        assert not gc.isenabled()
        lasting = Cycle()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    assert all(found is not lasting for found in gc.get_objects())
    gc.unfreeze()
