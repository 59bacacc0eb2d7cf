"""Which responses the soak accepts."""

import pytest

from tests.soak.expectations import Expectations, Served
from tfserving.wire.model_spec import ModelSpec

NEWEST = ModelSpec("m")
OLD = Served(frozenset({3, 4}), {"stable": 3})
NEW = Served(frozenset({4, 6}), {"stable": 6})
RESPONSES = (3, 4, 6, "NOT_FOUND", "INVALID_ARGUMENT")


def by_version(version):
    return ModelSpec("m", version)


def by_label(label):
    return ModelSpec("m", label=label)


def accepted(expectations, since, spec):
    return [response for response in RESPONSES if not expectations.find_violation(since, spec, response)]


@pytest.mark.parametrize(
    ("spec", "correct"),
    [
        (NEWEST, 4),
        (by_version(3), 3),
        (by_version(4), 4),
        (by_version(6), "NOT_FOUND"),
        (by_label("stable"), 3),
        (by_label("canary"), "INVALID_ARGUMENT"),
    ],
)
def test_accepts_one_response_while_nothing_changes(spec, correct):
    expectations = Expectations(OLD)
    assert accepted(expectations, expectations.current_interval(), spec) == [correct]


@pytest.mark.parametrize(
    ("spec", "correct"),
    [
        (NEWEST, [3, 4, 6]),
        (by_version(3), [3, "NOT_FOUND"]),
        (by_version(4), [4]),
        (by_version(6), [6, "NOT_FOUND"]),
        (by_label("stable"), [3, 6, "NOT_FOUND"]),
        (by_label("canary"), ["INVALID_ARGUMENT"]),
    ],
)
def test_accepts_the_old_and_the_new_response_during_a_change(spec, correct):
    expectations = Expectations(OLD)
    before = expectations.current_interval()
    expectations.begin_change(NEW)
    for since in (before, expectations.current_interval()):
        assert accepted(expectations, since, spec) == correct


def test_accepts_the_old_response_only_to_requests_that_began_before_the_change_was_complete():
    expectations = Expectations(OLD)
    before = expectations.current_interval()
    expectations.begin_change(NEW)
    expectations.finish_change()
    after = expectations.current_interval()
    assert accepted(expectations, before, by_version(3)) == [3, "NOT_FOUND"]
    assert accepted(expectations, after, by_version(3)) == ["NOT_FOUND"]
    assert 4 not in accepted(expectations, after, NEWEST)


def test_rejects_not_found_unless_no_version_should_be_left():
    expectations = Expectations(Served(frozenset({1})))
    expectations.begin_change(Served(frozenset({2})))
    assert expectations.find_violation(0, NEWEST, "NOT_FOUND")
    expectations.begin_change(Served())
    assert not expectations.find_violation(0, NEWEST, "NOT_FOUND")
