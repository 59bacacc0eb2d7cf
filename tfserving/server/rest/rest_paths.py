"""Methods and paths of the REST API: which call is meant, for which model."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from urllib.parse import unquote

from tfserving.errors import InvalidInputError, NotFoundError
from tfserving.wire.model_spec import ModelSpec


class Call(enum.Enum):
    """What can be asked of a model over REST."""

    STATUS = ""
    METADATA = "/metadata"
    PREDICT = ":predict"
    CLASSIFY = ":classify"
    REGRESS = ":regress"

    @property
    def method(self) -> str:
        """The name of the call in the gRPC API."""
        return _METHODS[self]


@dataclass(frozen=True)
class Target:
    """A call and the model that it is for."""

    call: Call
    spec: ModelSpec


_METHODS = {
    Call.STATUS: "GetModelStatus",
    Call.METADATA: "GetModelMetadata",
    Call.PREDICT: "Predict",
    Call.CLASSIFY: "Classify",
    Call.REGRESS: "Regress",
}

# After http_rest_api_util.cc: the path's words are matched without regard to case, the call's are not.
_MODELS = r"(?i:/v1/models)"
_VERSION = r"(?:(?i:/versions/)(?P<version>[0-9]+)|(?i:/labels/)(?P<label>[^/:]+))?"
_GET = re.compile(rf"{_MODELS}(?:/(?P<name>[^/:]+))?{_VERSION}(?P<call>/metadata)?")
_POST = re.compile(rf"{_MODELS}/(?P<name>[^/:]+){_VERSION}(?P<call>:predict|:classify|:regress)")
_ORIGIN = re.compile(r"(?i:https?)://[^/?]*")

_USAGE = (
    "there are GET /v1/models/NAME, GET /v1/models/NAME/metadata and POST /v1/models/NAME:predict (or "
    ":classify, :regress), where /versions/NUMBER or /labels/LABEL may follow NAME"
)


def parse(method: str, raw_path: str) -> Target:
    """The call that a request line asks for.

    Args:
        method: "GET", "POST", ...
        raw_path: the request target as it was sent, percent-encoded.

    Raises:
        NotFoundError: a path outside of /v1/.
        InvalidInputError: any other path or method that does not fit the API. The real server has no 405.
    """
    path = _ORIGIN.sub("", raw_path, count=1).partition("?")[0]
    if path[:4].lower() != "/v1/":
        raise NotFoundError(f"there is nothing at {path}: {_USAGE}")
    pattern = {"GET": _GET, "POST": _POST}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        raise InvalidInputError(f"malformed request {method} {path}: {_USAGE}")
    name, label, version = match["name"], match["label"], match["version"]
    if not name:
        raise InvalidInputError("the path names no model: GET /v1/models/NAME")
    return Target(
        Call(match["call"] or ""),
        ModelSpec(unquote(name), _number(version) if version else None, unquote(label) if label else None),
    )


def _number(version: str) -> int:
    digits = version.lstrip("0") or "0"
    # the length first: Python refuses to read thousands of digits
    if len(digits) > 19 or int(digits) >= 2**63:
        raise InvalidInputError(f"version {version} is beyond 64 bits: no model has it")
    return int(digits)
