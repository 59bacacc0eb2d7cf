import numpy as np
import pytest

from tfserving.client.features import input_message, values_of
from tfserving.errors import InvalidInputError


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (2, "int64_list"),
        (True, "int64_list"),
        (2.0, "float_list"),
        ([1, 2.5], "float_list"),
        ("a", "bytes_list"),
        ([b"a", "b"], "bytes_list"),
        (np.array([1, 2]), "int64_list"),
        (np.array([[1.0]], np.float32), "float_list"),
        (np.float32(3), "float_list"),
        ([np.int64(3), 4], "int64_list"),
        (np.array(["a"]), "bytes_list"),
        (bytearray(b"ab"), "bytes_list"),
        ([memoryview(b"a"), "b"], "bytes_list"),
        ([float("nan"), float("inf"), 3.4028235e38], "float_list"),
        ((1, 2), "int64_list"),
    ],
)
def test_the_kind_of_a_feature_follows_from_its_values(value, kind):
    message = input_message([{"f": value}], None)
    feature = message.example_list.examples[0].features.feature["f"]
    assert feature.WhichOneof("kind") == kind
    sent = np.array(getattr(feature, kind).value)
    expected = np.array(values_of("f", value), np.float32 if kind == "float_list" else None)
    assert np.array_equal(sent, expected, equal_nan=kind == "float_list")


def test_a_context_has_features_that_examples_share():
    message = input_message([{}, {"a": 1}], {"b": "x"})
    shared = message.example_list_with_context
    assert shared.context.features.feature["b"].bytes_list.value == [b"x"]
    assert len(shared.examples) == 2
    assert input_message([], None).WhichOneof("kind") == "example_list"


def test_accepts_an_empty_feature():
    feature = input_message([{"f": []}], None).example_list.examples[0].features.feature
    assert "f" in feature
    assert feature["f"].WhichOneof("kind") is None


@pytest.mark.parametrize(
    "value",
    [
        *(None, {"a": 1}, ["a", 1], [None], 2**63, object(), [[1, 2]]),
        *("\ud800", [b"a", "\ud800"], np.array(["\ud800"]), 1e39, [1.0, 10**400], np.float64(1e39)),
    ],
)
def test_rejects_values_that_a_feature_cannot_hold(value):
    with pytest.raises(InvalidInputError, match="feature 'f'"):
        input_message([{"f": value}], None)


@pytest.mark.parametrize("name", ["\ud800", 3, b"f"])
def test_rejects_names_that_a_feature_cannot_have(name):
    with pytest.raises(InvalidInputError, match="has no valid name"):
        input_message([{name: 1}], None)


@pytest.mark.parametrize("examples", [{"x": 1}, [1], ["a"]])
def test_rejects_examples_that_are_not_a_list_of_dicts(examples):
    with pytest.raises(InvalidInputError, match="dict"):
        input_message(examples, None)
