import grpc
import pytest

from tfserving.wire.http_status import code_of, status_of


def test_every_canonical_name_has_a_status():
    assert all(status_of(code.name) for code in grpc.StatusCode)
    assert {code.name for code in grpc.StatusCode if status_of(code.name) == 500} == {
        "UNKNOWN",
        "INTERNAL",
        "DATA_LOSS",
    }


@pytest.mark.parametrize(
    "code", ["NOT_FOUND", "INVALID_ARGUMENT", "UNIMPLEMENTED", "UNAVAILABLE", "INTERNAL"]
)
def test_status_and_code_are_inverse_for_common_codes(code):
    assert code_of(status_of(code)) == code


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (200, "OK"),
        (204, "OK"),
        (400, "INVALID_ARGUMENT"),
        (405, "INVALID_ARGUMENT"),
        (408, "DEADLINE_EXCEEDED"),
        (409, "ABORTED"),
        (502, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
        (599, "UNKNOWN"),
        (302, "UNKNOWN"),
    ],
)
def test_maps_statuses_that_proxies_send(status, code):
    assert code_of(status) == code


def test_an_unknown_code_is_status_500():
    assert status_of("WHATEVER") == 500
