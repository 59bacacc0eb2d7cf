"""From a model in hand to a version on disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfserving.errors import InvalidInputError, RepositoryError
from tfserving.export import sources
from tfserving.export.rewrite import Renaming, rewrite
from tfserving.export.tf_logging import quiet_logs
from tfserving.export.warmup_requests import (
    guess_requests,
    load_samples,
    replay,
    sample_requests,
    unguessable,
)
from tfserving.repository import versions
from tfserving.repository.model_names import check_name
from tfserving.repository.warmup_records import remove_warmup, warmup_file, write_warmup
from tfserving.wire.signatures import read_saved_model

log = logging.getLogger(__name__)


def export_saved_model(
    source: Any,
    name: str,
    *,
    version: int | None = None,
    models_dir: str | os.PathLike[str] = "models",
    input_names: Mapping[str, str] | None = None,
    output_names: Mapping[str, str] | None = None,
    image_bytes: bool = False,
    warmup: int = 0,
    warmup_data: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> Path:
    """Writes `source` as a version of model `name` and returns the version's path.

    The version appears at `models_dir/name/version` by one rename when everything is done and tried, so a
    server that watches the directory never sees half of it. An existing version is never overwritten.

    Args:
        source: a Keras 3 model; a `tf.Module` (its functions with an input_signature become signatures,
            `__call__` or the only one the default); a `tf.function` with an input_signature or a concrete
            function; or the path of a `.keras` or `.h5` file or of a SavedModel. A SavedModel that is neither
            renamed nor given `image_bytes` is copied file by file.
        name: the model's name, and that of its directory.
        version: the number; None takes the next one, 1 for a new model.
        models_dir: the model repository; it is made when missing.
        input_names: new names of inputs by their old ones, in every signature that has the old name.
        output_names: likewise for outputs.
        image_bytes: adds a signature `image_bytes` that takes encoded images, see `images.bytes_function`.
            Pixels reach the model as 0 to 255, unscaled.
        warmup: how many warmup requests to make for each signature from its dtypes and shapes.
        warmup_data: real samples to make warmup requests of instead: arrays by (new) input name whose first
            dimension counts the samples, or the path of an .npz file of such.

    Raises:
        InvalidInputError: an argument that cannot be right.
        RepositoryError: the version exists, or the disk refuses.
        ExportError: TensorFlow cannot load, save or run the model.
        Whatever is raised, an interrupt included, nothing of the version is left on disk.
    """
    check_name(name)
    renaming = Renaming(input_names or {}, output_names or {})
    if warmup < 0:
        raise InvalidInputError(f"{warmup} warmup requests: give a number from 1 on")
    if warmup and warmup_data is not None:
        raise InvalidInputError("warmup requests are either made or taken from samples: give one of the two")
    samples = None if warmup_data is None else load_samples(warmup_data)
    base = Path(models_dir) / name
    sources.check_source(source, base)
    _check_version(base, version)

    with quiet_logs(), versions.staged(base) as staging:
        if renaming or image_bytes:
            with versions.staged(base) as original:
                sources.write(source, original)
                rewrite(original, staging, renaming, image_bytes=image_bytes)
        else:
            sources.write(source, staging)

        signatures = read_saved_model(staging)
        if samples is not None:
            write_warmup(staging, sample_requests(name, signatures, samples))
        elif warmup:
            write_warmup(staging, guess_requests(name, signatures, warmup))
            for signature in unguessable(signatures):
                log.warning("no warmup request for signature %r: its inputs cannot be guessed", signature)
        elif renaming.inputs and warmup_file(staging).exists():
            remove_warmup(staging)
            log.warning("the warmup requests of the SavedModel use old names and are left out: make new ones")
        if warmup_file(staging).exists():
            replay(staging)
        return versions.publish(staging, base, version)


def _check_version(base: Path, version: int | None) -> None:
    """Refuses early, before minutes of work, what `publish` would refuse in the end."""
    if version is None:
        return
    if not 0 <= version <= versions.MAX_VERSION:
        raise InvalidInputError(
            f"version {version} is out of range: choose one from 0 to {versions.MAX_VERSION}"
        )
    if os.path.lexists(base / str(version)):
        raise RepositoryError(
            f"{base / str(version)} exists and versions are never overwritten: "
            f"choose another one, the next is {versions.next_version(base)}"
        )
