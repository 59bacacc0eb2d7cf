"""What a soak takes for a wrong answer."""

import pytest

from tests.soak.wishes import Wish, Wishes
from tfserving.wire.model_spec import ModelSpec

NEWEST = ModelSpec("m")
OLD = Wish(frozenset({3, 4}), {"stable": 3})
NEW = Wish(frozenset({4, 6}), {"stable": 6})


def number(version):
    return ModelSpec("m", version)


def label(name):
    return ModelSpec("m", label=name)


@pytest.mark.parametrize(
    ("asked", "right"),
    [
        (NEWEST, 4),
        (number(3), 3),
        (number(4), 4),
        (number(6), "NOT_FOUND"),
        (label("stable"), 3),
        (label("canary"), "INVALID_ARGUMENT"),
    ],
)
def test_there_is_one_right_answer_while_nothing_changes(asked, right):
    wishes = Wishes(OLD)
    faulty = [
        answer
        for answer in (3, 4, 6, "NOT_FOUND", "INVALID_ARGUMENT")
        if wishes.fault(wishes.mark(), asked, answer)
    ]
    assert sorted(map(str, faulty)) == sorted(
        str(answer) for answer in (3, 4, 6, "NOT_FOUND", "INVALID_ARGUMENT") if answer != right
    )


def test_either_is_right_during_a_change():
    wishes = Wishes(OLD)
    before = wishes.mark()
    wishes.changing(NEW)
    during = wishes.mark()
    for mark in (before, during):
        for asked, answers in [
            (NEWEST, (3, 4, 6)),
            (number(3), (3, "NOT_FOUND")),
            (number(4), (4,)),
            (number(6), (6, "NOT_FOUND")),
            (label("stable"), (3, 6, "NOT_FOUND")),
            (label("canary"), ("INVALID_ARGUMENT",)),
        ]:
            for answer in (3, 4, 6, "NOT_FOUND", "INVALID_ARGUMENT"):
                assert bool(wishes.fault(mark, asked, answer)) is (answer not in answers), (asked, answer)


def test_a_call_that_began_before_a_change_may_have_had_either_answer():
    wishes = Wishes(OLD)
    before = wishes.mark()
    wishes.changing(NEW)
    wishes.settled()
    assert not wishes.fault(before, number(3), 3)
    assert not wishes.fault(before, number(3), "NOT_FOUND")
    assert wishes.fault(wishes.mark(), number(3), 3)
    assert not wishes.fault(wishes.mark(), number(3), "NOT_FOUND")
    assert wishes.fault(wishes.mark(), NEWEST, 4)


def test_a_model_that_keeps_a_version_must_answer():
    wishes = Wishes(Wish(frozenset({1})))
    wishes.changing(Wish(frozenset({2})))
    assert wishes.fault(0, NEWEST, "NOT_FOUND")
    wishes.changing(Wish())
    assert not wishes.fault(0, NEWEST, "NOT_FOUND")
