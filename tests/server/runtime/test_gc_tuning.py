import gc
import weakref

from tfserving.server.runtime import gc_tuning
from tfserving.server.runtime.gc_tuning import DelayedCollector


class Timers:
    """Timers that the test fires."""

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


def test_garbage_is_collected_once_after_the_delay():
    timers = Timers()
    collector = DelayedCollector(timer=timers)
    for _ in range(2):
        garbage = weakref.ref(Cycle())
        gc.disable()
        try:
            collector.schedule()
            collector.schedule()
            assert garbage() is not None
            assert len(timers.due) == 1
            timers.run()
            assert garbage() is None
        finally:
            gc.enable()


def test_frozen_objects_are_exempt_from_collection():
    before = gc.get_freeze_count()
    with gc_tuning.freeze_objects():
        assert not gc.isenabled()
        kept = Cycle()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    assert all(found is not kept for found in gc.get_objects())
    gc.unfreeze()


def test_the_collector_stays_off_while_another_pause_lasts():
    gc_tuning.pause_collector()
    with gc_tuning.freeze_objects():
        pass
    assert not gc.isenabled()
    gc_tuning.resume_collector()
    assert gc.isenabled()
    gc.unfreeze()
