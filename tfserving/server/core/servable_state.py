"""The states of a version, as GetModelStatus reports them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tfserving.errors import TfServingError


class State(enum.IntEnum):
    """Numbers and names are those of `ModelVersionStatus.State`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class ServableStatus:
    """The state of a version, and the error of a load that failed."""

    version: int
    state: State
    error: TfServingError | None = None
