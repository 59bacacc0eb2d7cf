"""Methods and paths of the REST API: the method and the model that a request line names."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from tfserving.errors import InvalidInputError, NotFoundError
from tfserving.wire.model_spec import ModelSpec


class RestMethod(enum.Enum):
    """The methods, by the end of the path."""

    STATUS = ""
    METADATA = "/metadata"
    PREDICT = ":predict"
    CLASSIFY = ":classify"
    REGRESS = ":regress"


# The names of the same methods in the gRPC API.
GRPC_NAMES = {
    RestMethod.STATUS: "GetModelStatus",
    RestMethod.METADATA: "GetModelMetadata",
    RestMethod.PREDICT: "Predict",
    RestMethod.CLASSIFY: "Classify",
    RestMethod.REGRESS: "Regress",
}


@dataclass(frozen=True)
class RestCall:
    """A method and the model to apply it to."""

    method: RestMethod
    spec: ModelSpec


# As in http_rest_api_util.cc, /v1/models, /versions and /labels are case-insensitive, the method is not.
_MODELS = r"(?i:/v1/models)"
_VERSION = r"(?:(?i:/versions/)(?P<version>[0-9]+)|(?i:/labels/)(?P<label>[^/:]+))?"
_GET = re.compile(rf"{_MODELS}(?:/(?P<name>[^/:]+))?{_VERSION}(?P<method>/metadata)?")
_POST = re.compile(rf"{_MODELS}/(?P<name>[^/:]+){_VERSION}(?P<method>:predict|:classify|:regress)")
_ORIGIN = re.compile(r"(?i:https?)://[^/?]*")

_USAGE = (
    "use GET /v1/models/NAME, GET /v1/models/NAME/metadata, or POST /v1/models/NAME:predict (or :classify, "
    ":regress); NAME can be followed by /versions/NUMBER or /labels/LABEL"
)


def parse_path(raw_path: str) -> str:
    """The path of a request, with its query string, without the scheme and host that proxies send.

    Raises:
        NotFoundError: the path does not start with /v1/.
    """
    path = _ORIGIN.sub("", raw_path, count=1)
    if path[:4].lower() != "/v1/":
        raise NotFoundError(f"path {path} does not exist; {_USAGE}")
    return path


# so few that the longest paths, which a caller may invent, take some 30 MB at most
@lru_cache(128)
def parse_request_line(method: str, raw_path: str) -> RestCall:
    """Parse the method and the path of a request.

    As in tensorflow_model_server, a query string is not separated from the path: it becomes part of a model
    name or label at the end of the path, and is malformed after anything else.

    Args:
        method: "GET", "POST", ...
        raw_path: the request target as sent, percent-encoded.

    Raises:
        NotFoundError: the path does not start with /v1/.
        InvalidInputError: the API does not have this path or method (tensorflow_model_server returns no 405).
    """
    path = parse_path(raw_path)
    pattern = {"GET": _GET, "POST": _POST}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        hint = "omit the query string" if "?" in path else _USAGE
        raise InvalidInputError(f"malformed request {method} {path}; {hint}")
    name, label, version = match["name"], match["label"], match["version"]
    if not name:
        raise InvalidInputError(f"path {path} has no model name; use GET /v1/models/NAME")
    return RestCall(
        RestMethod(match["method"] or ""),
        ModelSpec(
            unquote(name), _parse_version(version) if version else None, unquote(label) if label else None
        ),
    )


def _parse_version(text: str) -> int:
    digits = text.lstrip("0") or "0"
    # the length first: int() raises for thousands of digits
    if len(digits) > 19 or int(digits) >= 2**63:
        raise InvalidInputError(f"version {text} does not fit a 64-bit integer")
    return int(digits)
