import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.server.fake_loader import FakeLoader, FakeServable, flaky
from tfserving.errors import (
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    RepositoryError,
    TfServingError,
)
from tfserving.server.core.manager import ServableManager
from tfserving.server.core.servable_state import State
from tfserving.server.request_context import RequestContext
from tfserving.server.server_options import LoadOptions
from tfserving.wire.model_spec import ModelSpec


def at(*versions):
    return {version: Path(f"/models/m/{version}") for version in versions}


@pytest.fixture
def loader():
    return FakeLoader()


@pytest.fixture
def manager(loader):
    manager = ServableManager(loader, LoadOptions(threads=2, max_retries=2, retry_seconds=0))
    manager.start()
    yield manager
    loader.release()
    manager.stop()


def states(manager, model="m"):
    return {status.version: status.state for status in manager.status(model)}


@contextmanager
def pinned(manager, model="m", **spec):
    harness = manager.acquire(ModelSpec(model, **spec))
    try:
        yield harness
    finally:
        harness.unpin()


def served(manager, **spec):
    with pinned(manager, **spec) as harness:
        return harness.version


def test_the_newest_version_is_the_default(manager):
    manager.aspire("m", at(1, 3, 2))
    manager.wait_until_available(["m"])
    assert served(manager) == 3
    assert served(manager, version=2) == 2
    assert [status.version for status in manager.status("m")] == [3, 2, 1]


def test_a_failed_load_does_not_stay_in_memory(eventually):
    class Large:
        pass

    alive = []

    def load(model, version, path):
        large = Large()
        alive.append(weakref.ref(large))
        try:
            raise ValueError(large)
        except ValueError as error:
            raise InvalidInputError("too large") from error

    manager = ServableManager(load)
    manager.start()
    manager.aspire("m", at(1))
    eventually(lambda: states(manager) == {1: State.END})
    assert str(manager.status("m")[0].error) == "too large"

    def is_gone():
        gc.collect()
        return alive[0]() is None

    eventually(is_gone)
    manager.stop()


def test_a_swap_loads_before_it_unloads(manager, loader, eventually):
    manager.aspire("m", at(1))
    manager.wait_until_available(["m"])
    loader.hold()
    manager.aspire("m", at(2))
    eventually(lambda: states(manager) == {1: State.AVAILABLE, 2: State.LOADING})
    assert served(manager) == 1
    loader.release()
    eventually(lambda: states(manager) == {1: State.END, 2: State.AVAILABLE})
    assert served(manager) == 2
    assert loader.loaded["m", 1].closed


def test_a_pinned_version_is_not_freed(manager, loader, eventually):
    manager.aspire("m", at(1))
    manager.wait_until_available(["m"])
    with pinned(manager) as harness:
        manager.aspire("m", at(2))
        eventually(lambda: states(manager)[1] is State.UNLOADING)
        assert served(manager) == 2
        assert harness.servable is loader.loaded["m", 1]
        assert not loader.loaded["m", 1].closed
    eventually(lambda: loader.loaded["m", 1].closed)


def test_a_broken_new_version_leaves_the_old_one_in_service(manager, loader, eventually):
    manager.aspire("m", at(1))
    manager.wait_until_available(["m"])
    loader.broken["m", 2] = [RepositoryError("no saved_model.pb")]
    manager.aspire("m", at(2))
    eventually(lambda: states(manager)[2] is State.END)
    assert served(manager) == 1
    status = manager.status("m", 2)[0]
    assert status.error is not None
    assert "no saved_model.pb" in str(status.error)
    # it is not retried while it stays aspired, but is if it is aspired again later
    manager.aspire("m", at(2))
    assert loader.calls.count(("m", 2)) == 1
    manager.aspire("m", at(1))
    manager.aspire("m", at(2))
    eventually(lambda: states(manager) == {1: State.END, 2: State.AVAILABLE})


def test_a_failed_load_is_retried(manager, loader):
    loader.broken["m", 1] = flaky(2)
    manager.aspire("m", at(1))
    # available at the third attempt: the wait must not end with the first one
    with pytest.raises(NotFoundError):
        served(manager)
    manager.wait_until_available(["m"])
    assert served(manager) == 1
    assert len(loader.calls) == 3


def test_retries_end_at_max_retries(manager, loader):
    loader.broken["m", 1] = flaky(3)
    manager.aspire("m", at(1))
    with pytest.raises(FailedPreconditionError, match="the disk is not mounted"):
        manager.wait_until_available(["m"])
    assert len(loader.calls) == 3


def test_removed_versions_are_unloaded_including_the_last(manager, eventually):
    manager.aspire("m", at(1, 2))
    manager.wait_until_available(["m"])
    manager.aspire("m", {})
    eventually(lambda: set(states(manager).values()) == {State.END})
    with pytest.raises(NotFoundError, match=r"^Servable not found for request: Latest\(m\)$"):
        served(manager)


def test_a_version_aspired_again_while_it_unloads_is_reloaded(manager, eventually):
    manager.aspire("m", at(1))
    manager.wait_until_available(["m"])
    with pinned(manager):
        manager.aspire("m", {})
        eventually(lambda: states(manager)[1] is State.UNLOADING)
        manager.aspire("m", at(1))
    eventually(lambda: states(manager)[1] is State.AVAILABLE)


def test_a_wait_includes_a_version_aspired_again_while_it_unloads(manager, eventually):
    pool = ThreadPoolExecutor(1)
    for number in range(20):
        name = f"m{number}"
        manager.aspire(name, at(1))
        manager.wait_until_available([name])
        with pinned(manager, name):
            manager.aspire(name, {})
            eventually(lambda name=name: states(manager, name)[1] is State.UNLOADING)
            manager.aspire(name, at(1))
            waiting = pool.submit(manager.wait_until_available, [name], 30)
        assert waiting.result(60) is None


def test_a_cancelled_wait_ends_and_others_go_on(manager, loader):
    loader.hold()
    manager.aspire("m", at(1))
    waiting = [manager.when_available(["m"], 30) for _ in range(3)]
    assert waiting[0].cancel()
    loader.release()
    assert [each.result(30) for each in waiting[1:]] == [None, None]
    assert waiting[0].cancelled()


def test_a_wait_does_not_outlive_the_manager(loader):
    manager = ServableManager(loader)
    manager.start()
    waiting = manager.when_available(["nobody"])
    manager.stop()
    for each in (waiting, manager.when_available(["nobody"])):
        with pytest.raises(TfServingError, match="the server stopped before nobody was loaded"):
            each.result(30)


def test_a_request_that_delays_an_unload_does_not_delay_a_load(loader, eventually):
    manager = ServableManager(loader, LoadOptions(threads=1))
    manager.start()
    manager.aspire("m", at(1))
    manager.wait_until_available(["m"])
    with pinned(manager):
        manager.aspire("m", at(2))
        eventually(lambda: states(manager)[1] is State.UNLOADING)
        manager.aspire("other", at(1))
        manager.wait_until_available(["other"], 30)
    manager.stop()


def test_finds_a_version_by_label(manager):
    manager.aspire("m", at(1, 3), {"stable": 1, "gone": 2})
    manager.wait_until_available(["m"])
    assert served(manager, label="stable") == 1
    with pytest.raises(NotFoundError, match=r"Specific\(m, 2\)"):
        served(manager, label="gone")
    with pytest.raises(InvalidInputError, match="no label 'nobody'"):
        served(manager, label="nobody")


def test_rejects_models_and_versions_that_do_not_exist(manager):
    with pytest.raises(NotFoundError, match=r"^Servable not found for request: Latest\(nobody\)$"):
        manager.acquire(ModelSpec("nobody"))
    with pytest.raises(InvalidInputError, match="no model name was given"):
        manager.acquire(ModelSpec(""))
    with pytest.raises(NotFoundError, match="nobody"):
        manager.status("nobody")
    manager.aspire("m", at(1))
    manager.wait_until_available(["m"])
    with pytest.raises(NotFoundError, match="no version 5"):
        manager.status("m", 5)


def test_a_slow_load_does_not_delay_another_model(manager, loader, eventually):
    loader.hold()
    manager.aspire("slow", at(1))
    eventually(lambda: ("slow", 1) in loader.calls)
    # the second load thread is idle
    manager.aspire("m", at(1))
    eventually(lambda: ("m", 1) in loader.calls)


def test_requests_do_not_fail_while_versions_are_swapped(manager):
    """Eight callers, forty swaps."""
    manager.aspire("m", at(1))
    manager.wait_until_available(["m"])
    stop = threading.Event()
    failures = []

    def call():
        while not stop.is_set():
            try:
                with pinned(manager) as harness:
                    signature = harness.servable.signatures["serving_default"]
                    inputs = {"x": np.ones(1, np.float32)}
                    harness.servable.submit(RequestContext(), signature, inputs, ["y"]).result(30)
            except Exception as error:  # noqa: BLE001 - asserted below
                failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for version in range(2, 42):
        manager.aspire("m", at(version))
        manager.wait_until_available(["m"])
    stop.set()
    for caller in callers:
        caller.join()
    assert not failures
    assert served(manager) == 41


def test_stop_unloads_every_version(loader):
    manager = ServableManager(loader)
    manager.start()
    manager.aspire("m", at(1, 2))
    manager.wait_until_available(["m"])
    manager.stop()
    assert all(servable.closed for servable in loader.loaded.values())
    assert set(states(manager).values()) == {State.END}


def test_a_servable_that_cannot_be_closed_ends_all_the_same(loader, caplog, monkeypatch):
    def fail(self):
        raise OSError("the device is gone")

    monkeypatch.setattr(FakeServable, "close", fail)
    manager = ServableManager(loader)
    manager.start()
    manager.aspire("m", at(1))
    manager.wait_until_available(["m"])
    stopping = threading.Thread(target=manager.stop)
    stopping.start()
    stopping.join(30)
    assert not stopping.is_alive()
    assert states(manager) == {1: State.END}
    assert "model 'm' version 1" in caplog.text
    assert "the device is gone" in caplog.text


def test_a_version_that_is_no_longer_aspired_is_unloaded_while_another_covers_for_it(
    manager, loader, eventually
):
    manager.aspire("m", at(1, 2))
    manager.wait_until_available(["m"])
    loader.hold()
    manager.aspire("m", at(3))
    eventually(lambda: states(manager) == {1: State.END, 2: State.AVAILABLE, 3: State.LOADING})
    assert served(manager) == 2
    loader.release()
    eventually(lambda: states(manager) == {1: State.END, 2: State.END, 3: State.AVAILABLE})
