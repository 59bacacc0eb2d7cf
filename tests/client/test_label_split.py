"""How keys are given to labels."""

import copy
import random

import numpy as np
import pytest

from tfserving.client import TfRpcClient
from tfserving.client.label_split import LabelSplit

KEYS = [f"user{number}" for number in range(20_000)]


def fail():
    raise AssertionError("the choice for a key is not random")


def labels_of(weights, model="m", keys=KEYS):
    split = LabelSplit(weights, model)
    return np.array([split.choose(key, fail) for key in keys])


def share(labels, label):
    return (labels == label).mean()


def test_each_label_gets_its_share_of_the_keys():
    labels = labels_of({"stable": 90, "canary": 7.5, "test": 2.5})
    for label, expected in (("stable", 0.9), ("canary", 0.075), ("test", 0.025)):
        assert share(labels, label) == pytest.approx(expected, abs=0.01)


def test_each_label_gets_its_share_of_the_random_numbers():
    split = LabelSplit({"stable": 3, "canary": 1}, "m")
    rng = random.Random(1)
    labels = np.array([split.choose(None, rng.random) for _ in range(20_000)])
    assert share(labels, "canary") == pytest.approx(0.25, abs=0.01)
    assert split.choose(None, lambda: 1.0) == "canary", "rounding does not leave the last label"


def test_the_same_keys_have_the_same_labels_in_every_version_of_this_package():
    split = LabelSplit({"stable": 2, "canary": 1}, "digits")
    assert (
        "".join(split.choose(f"user{number}", fail)[0] for number in range(24)) == "cscssssccsssccssssssscss"
    )


def test_the_choice_depends_on_shares_only():
    labels = labels_of({"stable": 95, "canary": 5})
    assert (labels == labels_of({"canary": 0.05, "stable": 0.95})).all()


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ({"stable": 95, "canary": 5}, {"stable": 80, "canary": 20}, ("stable", "canary", 0.15)),
        ({"stable": 80, "canary": 20}, {"stable": 95, "canary": 5}, ("canary", "stable", 0.15)),
        ({"stable": 1}, {"stable": 9, "canary": 1}, ("stable", "canary", 0.1)),
        ({"stable": 9, "canary": 1}, {"stable": 1}, ("canary", "stable", 0.1)),
    ],
)
def test_only_as_many_keys_move_as_must(before, after, moved):
    old, new = labels_of(before), labels_of(after)
    source, target, expected = moved
    assert {(str(a), str(b)) for a, b in zip(old, new, strict=True) if a != b} == {(source, target)}
    assert (old != new).mean() == pytest.approx(expected, abs=0.01)


def test_if_one_of_three_weights_grows_keys_move_only_to_its_label():
    old = labels_of({"a": 50, "b": 30, "c": 20})
    new = labels_of({"a": 50, "b": 30, "c": 40})
    assert set(new[old != new]) == {"c"}
    assert set(old[old != new]) == {"a", "b"}


def test_the_splits_of_two_models_are_independent():
    weights = {"stable": 1, "canary": 1}
    both = (labels_of(weights, "one") == "canary") & (labels_of(weights, "two") == "canary")
    assert both.mean() == pytest.approx(0.25, abs=0.015)


def test_an_int_and_its_digits_are_the_same_key():
    split = LabelSplit({"stable": 1, "canary": 1}, "m")
    for number in (0, 7, -7, np.int64(123), 10**30, -(2**127)):
        assert split.choose(number, fail) == split.choose(str(number), fail)
        assert split.choose(str(number).encode(), fail) == split.choose(str(number), fail)
    assert {split.choose(f"a\ud800{n}", fail) for n in range(20)} == {"stable", "canary"}


def test_takes_extreme_weights():
    assert set(labels_of({"stable": 1e300, "canary": 5e-324}, keys=KEYS[:100])) == {"stable"}
    assert len(set(labels_of({"stable": 5e-324, "canary": 5e-324}, keys=KEYS[:100]))) == 2


def test_later_changes_of_the_weights_do_not_reach_the_client_or_its_copies():
    weights = {"stable": 95}
    with TfRpcClient("127.0.0.1:1", "m", split=weights) as client:
        weights["canary"] = "invalid"
        copy.copy(client).close()
