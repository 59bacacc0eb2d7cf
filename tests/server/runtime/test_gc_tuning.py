import gc

from tfserving.server.runtime import gc_tuning


class Cycle:
    def __init__(self):
        self.self = self


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
