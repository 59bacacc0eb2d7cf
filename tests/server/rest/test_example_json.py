import json
import math

import pytest
from google.protobuf import json_format

from tfserving.errors import InvalidInputError
from tfserving.server.rest.example_json import parse_examples


def features(example):
    return {
        name: (
            feature.WhichOneof("kind"),
            list(getattr(feature, feature.WhichOneof("kind") or "int64_list").value),
        )
        for name, feature in example.features.feature.items()
    }


def parse(request):
    return parse_examples(json.dumps(request).encode())


def test_the_spelling_of_values_decides_the_type_of_a_feature():
    signature, given = parse(
        {
            "signature_name": "s",
            "examples": [
                {
                    "f": 80.0,
                    "i": 80,
                    "b": True,
                    "s": "wörld",
                    "raw": {"b64": "AP8="},
                    "fs": [1.5, math.inf, math.nan, 1e40, -1e300],
                    "is": [1, False, -(2**63)],
                    "ss": ["a", {"b64": "AA=="}],
                    "none": [],
                }
            ],
        }
    )
    assert signature == "s"
    (example,) = given.example_list.examples
    found = features(example)
    assert repr(found.pop("fs")) == "('float_list', [1.5, inf, nan, inf, -inf])"
    assert found == {
        "f": ("float_list", [80.0]),
        "i": ("int64_list", [80]),
        "b": ("int64_list", [1]),
        "s": ("bytes_list", ["wörld".encode()]),
        "raw": ("bytes_list", [b"\x00\xff"]),
        "is": ("int64_list", [1, 0, -(2**63)]),
        "ss": ("bytes_list", [b"a", b"\0"]),
        "none": (None, []),
    }


def test_each_object_becomes_an_example():
    signature, given = parse({"examples": [{"x": 1}, {}, {"x": 2}]})
    assert signature == ""
    assert [features(example) for example in given.example_list.examples] == [
        {"x": ("int64_list", [1])},
        {},
        {"x": ("int64_list", [2])},
    ]


def test_strings_need_not_be_utf8():
    _, given = parse_examples(b'{"examples": [{"s": ["caf\xe9", "\\udcff"]}]}')
    assert features(given.example_list.examples[0]) == {"s": ("bytes_list", [b"caf\xe9", b"\xed\xb3\xbf"])}


def test_the_last_of_equal_features_counts():
    _, given = parse_examples(b'{"examples": [{"x": "a", "x": 2}], "examples": [{"x": 3}]}')
    assert [features(example) for example in given.example_list.examples] == [{"x": ("int64_list", [2])}]


def test_a_context_is_sent_with_the_examples():
    _, given = parse({"context": {"c": 1.0}, "examples": [{"x": 2.0}]})
    assert json_format.MessageToDict(given)["exampleListWithContext"] == {
        "context": {"features": {"feature": {"c": {"floatList": {"value": [1.0]}}}}},
        "examples": [{"features": {"feature": {"x": {"floatList": {"value": [2.0]}}}}}],
    }


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "the body is a list"),
        ({}, "has no 'examples'"),
        ({"examples": []}, "has no 'examples'"),
        ({"examples": {"x": 1}}, "has no 'examples'"),
        ({"examples": [{"x": 1}], "signature_name": 1}, "'signature_name' is 1"),
        ({"examples": [1]}, r"examples\[0\] is not an object"),
        ({"examples": [{"x": 1}], "context": [1]}, "context is not an object"),
        ({"examples": [{}, {"x": None}]}, r"examples\[1\]\.x: a feature cannot hold"),
        ({"examples": [{"x": [[1]]}]}, r"examples\[0\]\.x: a feature cannot hold"),
        ({"examples": [{"x": [1, 2.0]}]}, "have different types"),
        ({"examples": [{"x": ["a", 2.0]}]}, "have different types"),
        ({"examples": [{"x": 2**63}]}, "does not fit int64"),
        ({"examples": [{"x": {"b64": "!"}}]}, "not base64"),
        ({"examples": [{"x": {"y": 1}}]}, 'single key "b64"'),
        ({"examples": [{"x": 1}], "context": {"c": None}}, r"context\.c: a feature cannot hold"),
    ],
)
def test_rejects_invalid_requests(request_, message):
    with pytest.raises(InvalidInputError, match=message):
        parse(request_)
