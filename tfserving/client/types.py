"""What the calls answer with, where it is not arrays."""

from __future__ import annotations

from typing import NamedTuple


class Classification(NamedTuple):
    """One class of one example; label "" where the model gives scores only."""

    label: str
    score: float


class VersionStatus(NamedTuple):
    """The state of one version of a model.

    `state` is START, LOADING, AVAILABLE, UNLOADING or END; `error_code` "OK", or why it is not available.
    """

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""
