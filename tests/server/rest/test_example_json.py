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


def test_the_kind_of_a_feature_is_how_its_values_are_written():
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
                    "fs": [1.5, math.inf, math.nan],
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
    assert repr(found.pop("fs")) == "('float_list', [1.5, inf, nan])"
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


def test_every_object_is_an_example():
    signature, given = parse({"examples": [{"x": 1}, {}, {"x": 2}]})
    assert signature == ""
    assert [features(example) for example in given.example_list.examples] == [
        {"x": ("int64_list", [1])},
        {},
        {"x": ("int64_list", [2])},
    ]


def test_a_context_stands_beside_the_examples():
    _, given = parse({"context": {"c": 1.0}, "examples": [{"x": 2.0}]})
    assert json_format.MessageToDict(given)["exampleListWithContext"] == {
        "context": {"features": {"feature": {"c": {"floatList": {"value": [1.0]}}}}},
        "examples": [{"features": {"feature": {"x": {"floatList": {"value": [2.0]}}}}}],
    }


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "the body is a list"),
        ({}, "needs 'examples'"),
        ({"examples": []}, "needs 'examples'"),
        ({"examples": {"x": 1}}, "needs 'examples'"),
        ({"examples": [{"x": 1}], "signature_name": 1}, "'signature_name' is 1"),
        ({"examples": [1]}, r"examples\[0\] is no object"),
        ({"examples": [{"x": 1}], "context": [1]}, "context is no object"),
        ({"examples": [{}, {"x": None}]}, r"examples\[1\]\.x: a feature holds"),
        ({"examples": [{"x": [[1]]}]}, r"examples\[0\]\.x: a feature holds"),
        ({"examples": [{"x": [1, 2.0]}]}, "of several kinds"),
        ({"examples": [{"x": ["a", 2.0]}]}, "of several kinds"),
        ({"examples": [{"x": 2**63}]}, "does not fit int64"),
        ({"examples": [{"x": 1e39}]}, "too large for a float"),
        ({"examples": [{"x": {"b64": "!"}}]}, "not base64"),
        ({"examples": [{"x": {"y": 1}}]}, 'one key "b64"'),
        ({"examples": [{"x": 1}], "context": {"c": None}}, r"context\.c: a feature holds"),
    ],
)
def test_requests_that_are_refused(request_, message):
    with pytest.raises(InvalidInputError, match=message):
        parse(request_)
