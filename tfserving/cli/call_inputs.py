"""The inputs on the command line: JSON or files, each for the only input or by name."""

from __future__ import annotations

import base64
import binascii
import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format

from tfserving.errors import InvalidInputError

# The functions for the format of .npy files, which have no types.
npy_format: Any = numpy.lib.format

_SUFFIXES = (".npy", ".npz", ".json")
# What numpy, zipfile and json raise for a file in another format.
FORMAT_ERRORS = (ValueError, EOFError, RecursionError, NotImplementedError, zipfile.BadZipFile, zlib.error)
# A name contains no character that JSON begins with, since JSON can contain "=" as well.
_NAMED = re.compile(r'([^=\[{"]+)=(.*)', re.DOTALL)


def read_inputs(values: Sequence[str]) -> Any:
    """The inputs for `infer`: a mapping, or the value of the only input; None without values.

    Raises:
        InvalidInputError: a value is neither JSON nor a file, a file is not readable, or several values have
            no names.
    """
    named: dict[str, Any] = {}
    bare: list[Any] = []
    for text in values:
        match = None if _is_file(text) else _NAMED.fullmatch(text)
        if match is None:
            bare.append(_read(text))
        elif match[1] in named:
            raise InvalidInputError(f"input {match[1]!r} is given twice; give each input once")
        else:
            named[match[1]] = _read(match[2])
    if not bare:
        return named or None
    if named or len(bare) > 1:
        raise InvalidInputError(
            "several values need the names of their inputs; write NAME=VALUE (--show prints the names)"
        )
    return bare[0]


def _is_file(text: str) -> bool:
    try:
        return text.endswith(_SUFFIXES) and Path(text).is_file()
    except (OSError, ValueError):
        return False


def _read(text: str) -> Any:
    if text.endswith(_SUFFIXES) and text[:1] not in '["{':
        return _read_file(Path(text))
    try:
        return _decoded(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        hint = "" if text[:1] in '["{' else f"; a string needs its own quotes: '\"{text:.20}\"'"
        raise InvalidInputError(
            f"{text!r:.60} is neither JSON ({error}) nor a .npy, .npz or .json file{hint}"
        ) from error


def _read_file(path: Path) -> Any:
    try:
        if path.suffix == ".json":
            return _decoded(json.loads(path.read_text(encoding="utf-8")))
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}") from error
    except FORMAT_ERRORS as error:
        raise InvalidInputError(f"{path} is not a valid {path.suffix} file: {error}") from error


def _decoded(value: Any) -> Any:
    """The value with each {"b64": ...} of the REST API as bytes."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise InvalidInputError(f"{value!r:.60} is not valid base64: {error}") from error
    return {name: _decoded(item) for name, item in value.items()}
