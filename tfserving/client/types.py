"""The classes of results that are not arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tfserving.errors import TfServingError
    from tfserving.wire.dtypes import Array, Arrays


class Classification(NamedTuple):
    """One class of one example; the label is "" if the model has only scores."""

    label: str
    score: float


# What multi_inference returns for each signature; a string, since numpy is imported on the first call.
Inference = Mapping[str, "list[list[Classification]] | Array"]


class VersionStatus(NamedTuple):
    """The state of one version of a model.

    `state` is START, LOADING, AVAILABLE, UNLOADING or END; `error_code` is "OK" unless the version failed.
    """

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


class RowResult(NamedTuple):
    """The result of one row of `infer_many`: outputs or an error.

    `row` is the number of the row, from 0. `outputs` are arrays by name, without the dimension of the batch;
    the rows of one request share memory. If the row failed, `outputs` is None and `error` says why.
    """

    row: int
    outputs: Arrays | None
    error: TfServingError | None = None
