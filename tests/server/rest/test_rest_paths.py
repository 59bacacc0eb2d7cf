import pytest

from tfserving.errors import InvalidInputError, NotFoundError
from tfserving.server.rest.rest_paths import Call, Target, parse
from tfserving.wire.model_spec import ModelSpec


@pytest.mark.parametrize(
    ("method", "path", "call", "spec"),
    [
        ("GET", "/v1/models/m", Call.STATUS, ModelSpec("m")),
        ("GET", "/v1/models/m/versions/3", Call.STATUS, ModelSpec("m", 3)),
        ("GET", "/v1/models/m/labels/stable", Call.STATUS, ModelSpec("m", label="stable")),
        ("GET", "/v1/models/m/metadata", Call.METADATA, ModelSpec("m")),
        ("GET", "/v1/models/m/versions/0/metadata", Call.METADATA, ModelSpec("m", 0)),
        ("GET", "/v1/models/m/labels/a%20b/metadata", Call.METADATA, ModelSpec("m", label="a b")),
        ("POST", "/v1/models/m:predict", Call.PREDICT, ModelSpec("m")),
        ("POST", "/v1/models/m/versions/12:classify", Call.CLASSIFY, ModelSpec("m", 12)),
        ("POST", "/v1/models/m/labels/new:regress", Call.REGRESS, ModelSpec("m", label="new")),
        ("POST", "/V1/Models/M/VERSIONS/1:predict", Call.PREDICT, ModelSpec("M", 1)),
        ("POST", "/v1/models/m:predict?x=1", Call.PREDICT, ModelSpec("m")),
        ("POST", "http://127.0.0.1:8501/v1/models/m:predict", Call.PREDICT, ModelSpec("m")),
        ("GET", "/v1/models/a%2Fb%3Ac%C3%A9", Call.STATUS, ModelSpec("a/b:cé")),
        ("GET", "/v1/models/metadata", Call.STATUS, ModelSpec("metadata")),
        ("GET", f"/v1/models/m/versions/{2**63 - 1}", Call.STATUS, ModelSpec("m", 2**63 - 1)),
    ],
)
def test_paths_of_the_api(method, path, call, spec):
    assert parse(method, path) == Target(call, spec)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/m"),
        ("GET", "/v1/models/m:predict"),
        ("POST", "/v1/models/m:guess"),
        ("POST", "/v1/models/m:PREDICT"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/v1/models/m/versions/one:predict"),
        ("POST", "/v1/models/m/versions/-1:predict"),
        ("POST", "/v1/models/m/versions/１:predict"),
        ("POST", "/v1/models/m/versions/1/labels/a:predict"),
        ("GET", f"/v1/models/m/versions/{2**63}"),
        pytest.param("GET", "/v1/models/m/versions/" + "9" * 5000, id="GET-5000 digits"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/versions/3"),
        ("GET", "/v1/models/m/"),
        ("GET", "/v1/"),
        ("DELETE", "/v1/models/m"),
        ("OPTIONS", "/v1/models/m"),
    ],
)
def test_what_does_not_fit_the_api_is_invalid(method, path):
    with pytest.raises(InvalidInputError, match=r"GET /v1/models/NAME|beyond 64 bits"):
        parse(method, path)


@pytest.mark.parametrize("path", ["/", "/v2/models", "/v1", "*", "", "//v1/models/m"])
def test_outside_of_the_api_nothing_is_found(path):
    with pytest.raises(NotFoundError, match="nothing at"):
        parse("GET", path)


def test_zeros_before_a_version_do_not_count():
    assert parse("GET", f"/v1/models/m/versions/{'0' * 5000}7").spec.version == 7
    assert parse("GET", "/v1/models/m/versions/00").spec.version == 0
