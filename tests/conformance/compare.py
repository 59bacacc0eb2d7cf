"""Compares responses with recorded ones. Needs neither TensorFlow nor a server.

A `Response` is JSON: `code` and `answer` or `message` for gRPC, `status` and `answer` for REST.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

Response = dict[str, Any]

GOLDEN = Path(__file__).with_name("golden.json")
GOLDEN_BATCHING = Path(__file__).with_name("golden_batching.json")


def load(path: Path) -> dict[str, Response]:
    """Load responses by the name of their case."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def save(path: Path, responses: dict[str, Response]) -> None:
    """Write responses, sorted and indented, so that two recordings can be compared with diff."""
    path.write_text(
        json.dumps(responses, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
    )


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal, numbers with the precision of float32; NaN equals NaN."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def message_of(response: Response) -> str | None:
    """Return the error message of a rejection, None for a successful response."""
    if "code" in response:
        return None if response["code"] == "OK" else response["message"]
    if response["status"] == 200:
        return None
    body = response["answer"]
    return body.get("error", "") if isinstance(body, dict) else ""


def kept(response: Response) -> Response:
    """Return what is recorded: all of a success; of a rejection, its code and that it has a message."""
    message = message_of(response)
    if message is None:
        return response
    if "code" in response:
        return {"code": response["code"]}
    return {"status": response["status"], "error": bool(message)}


def agree(golden: Response, response: Response) -> bool:
    """Whether `response` agrees with the recorded one; a rejection needs a message, with any wording."""
    head = "code" if "code" in golden else "status"
    if golden[head] != response.get(head):
        return False
    if "answer" in golden:
        return same(golden["answer"], response["answer"])
    return bool(message_of(response)) or golden.get("error") is False
