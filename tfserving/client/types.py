"""The classes of results that are not arrays."""

from __future__ import annotations

from typing import NamedTuple


class Classification(NamedTuple):
    """One class of one example; the label is "" if the model has only scores."""

    label: str
    score: float


class VersionStatus(NamedTuple):
    """The state of one version of a model.

    `state` is START, LOADING, AVAILABLE, UNLOADING or END; `error_code` is "OK" unless the version failed.
    """

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""
