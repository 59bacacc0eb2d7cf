import pytest

from tfserving.errors import InvalidInputError, NotFoundError
from tfserving.server.rest.rest_paths import RestCall, RestMethod, parse_request_line
from tfserving.wire.model_spec import ModelSpec


@pytest.mark.parametrize(
    ("http_method", "path", "method", "spec"),
    [
        ("GET", "/v1/models/m", RestMethod.STATUS, ModelSpec("m")),
        ("GET", "/v1/models/m/versions/3", RestMethod.STATUS, ModelSpec("m", 3)),
        ("GET", "/v1/models/m/labels/stable", RestMethod.STATUS, ModelSpec("m", label="stable")),
        ("GET", "/v1/models/m/metadata", RestMethod.METADATA, ModelSpec("m")),
        ("GET", "/v1/models/m/versions/0/metadata", RestMethod.METADATA, ModelSpec("m", 0)),
        ("GET", "/v1/models/m/labels/a%20b/metadata", RestMethod.METADATA, ModelSpec("m", label="a b")),
        ("POST", "/v1/models/m:predict", RestMethod.PREDICT, ModelSpec("m")),
        ("POST", "/v1/models/m/versions/12:classify", RestMethod.CLASSIFY, ModelSpec("m", 12)),
        ("POST", "/v1/models/m/labels/new:regress", RestMethod.REGRESS, ModelSpec("m", label="new")),
        ("POST", "/V1/Models/M/VERSIONS/1:predict", RestMethod.PREDICT, ModelSpec("M", 1)),
        ("GET", "/v1/models/m?x=1", RestMethod.STATUS, ModelSpec("m?x=1")),
        ("GET", "/v1/models/m/labels/a?x=1", RestMethod.STATUS, ModelSpec("m", label="a?x=1")),
        ("POST", "http://127.0.0.1:8501/v1/models/m:predict", RestMethod.PREDICT, ModelSpec("m")),
        ("GET", "/v1/models/a%2Fb%3Ac%C3%A9", RestMethod.STATUS, ModelSpec("a/b:cé")),
        ("GET", "/v1/models/metadata", RestMethod.STATUS, ModelSpec("metadata")),
        ("GET", f"/v1/models/m/versions/{2**63 - 1}", RestMethod.STATUS, ModelSpec("m", 2**63 - 1)),
    ],
)
def test_parses_the_paths_of_the_api(http_method, path, method, spec):
    assert parse_request_line(http_method, path) == RestCall(method, spec)


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
        ("HEAD", "/v1/models/m"),
    ],
)
def test_other_methods_and_paths_are_invalid(method, path):
    with pytest.raises(InvalidInputError, match=r"GET /v1/models/NAME|does not fit a 64-bit integer"):
        parse_request_line(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/m:predict?x=1"),
        ("POST", "/v1/models/m:predict?"),
        ("GET", "/v1/models/m/versions/1?x=1"),
        ("GET", "/v1/models/m/metadata?x=1"),
        ("GET", "http://127.0.0.1:8501/v1/models/m/metadata?x=/metadata"),
    ],
)
def test_rejects_a_query_string(method, path):
    with pytest.raises(InvalidInputError, match="omit the query string"):
        parse_request_line(method, path)


@pytest.mark.parametrize("path", ["/", "/v2/models", "/v1", "*", "", "//v1/models/m", "?/v1/models/m"])
def test_paths_outside_of_the_api_are_not_found(path):
    with pytest.raises(NotFoundError, match="does not exist"):
        parse_request_line("GET", path)


def test_ignores_leading_zeros_of_a_version():
    assert parse_request_line("GET", f"/v1/models/m/versions/{'0' * 5000}7").spec.version == 7
    assert parse_request_line("GET", "/v1/models/m/versions/00").spec.version == 0
