"""Which responses agree with recorded ones, and that the recordings are complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance import compare


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1.0, True),
        (1.0, 1.0000001, True),
        (1.0, 1.00001, False),
        (float("nan"), float("nan"), True),
        (float("inf"), float("inf"), True),
        (float("inf"), float("-inf"), False),
        (True, 1, False),
        (True, True, True),
        ("1", 1, False),
        (None, None, True),
        ([1, 2], [1, 2], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({"a": [1.0]}, {"a": [1.00000001]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({}, [], False),
    ],
)
def test_compares_json_values_with_the_precision_of_float32(a: Any, b: Any, equal: bool) -> None:
    assert compare.same(a, b) is equal
    assert compare.same(b, a) is equal


OK = {"code": "OK", "answer": {"y": 1}}
REJECTED = {"code": "NOT_FOUND", "message": "no such model"}
REST_OK = {"status": 200, "content_type": "application/json", "answer": {"predictions": [1]}}
REST_REJECTED = {"status": 404, "content_type": "application/json", "answer": {"error": "no such model"}}
REST_WITHOUT_MESSAGE = {"status": 405, "content_type": None, "answer": {"text": ""}}


@pytest.mark.parametrize("response", [OK, REJECTED, REST_OK, REST_REJECTED, REST_WITHOUT_MESSAGE])
def test_a_response_agrees_with_its_recording(response: compare.Response) -> None:
    assert compare.agree(compare.kept(response), response)


@pytest.mark.parametrize(
    ("golden", "response"),
    [
        (OK, REJECTED),
        (OK, {"code": "OK", "answer": {"y": 2}}),
        (REJECTED, OK),
        (REJECTED, {"code": "INVALID_ARGUMENT", "message": "no such model"}),
        (REJECTED, {"code": "NOT_FOUND", "message": ""}),
        (REST_OK, REST_REJECTED),
        (REST_OK, {**REST_OK, "answer": {"predictions": [2]}}),
        (REST_REJECTED, {**REST_REJECTED, "status": 400}),
        (REST_REJECTED, {**REST_REJECTED, "answer": {"text": "no such model"}}),
        (REST_REJECTED, REST_OK),
    ],
)
def test_different_responses_do_not_agree(golden: compare.Response, response: compare.Response) -> None:
    assert not compare.agree(compare.kept(golden), response)


def test_ignores_the_wording_of_a_rejection() -> None:
    assert compare.agree(compare.kept(REJECTED), {"code": "NOT_FOUND", "message": "other wording"})


def test_loads_what_it_saved(tmp_path: Path) -> None:
    responses: dict[str, compare.Response] = {"b": OK, "a": {"status": 200, "answer": {"y": [1.5, "ö"]}}}
    compare.save(tmp_path / "responses.json", responses)
    assert compare.load(tmp_path / "responses.json") == responses


def test_the_recordings_have_all_cases() -> None:
    plain, batching = compare.load(compare.GOLDEN), compare.load(compare.GOLDEN_BATCHING)
    assert len(plain) == 165
    assert plain.keys() - batching.keys() == {"grpc: predict empty batch"}
    assert not batching.keys() - plain.keys()
