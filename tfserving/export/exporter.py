"""Export of a model as a version on disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfserving.errors import ExportError, InvalidInputError
from tfserving.export import sources
from tfserving.export.replay import run_in_fresh_process
from tfserving.export.rewrite import Renaming, rewrite
from tfserving.export.samples import load_samples
from tfserving.export.tf_logging import quiet_logs
from tfserving.export.verified_warmup import failed_warmup, write_generated_warmup
from tfserving.export.warmup_requests import encode_samples
from tfserving.repository import versions
from tfserving.repository.graph_ops import find_ops
from tfserving.repository.model_names import check_name
from tfserving.repository.warmup_records import remove_warmup, warmup_file, write_warmup
from tfserving.wire.graph_files import read_graph_file
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
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Export `source` as a version of model `name` and return the path of the version.

    The version appears as `models_dir/name/version` by one rename after everything is written and tested, so
    a server never sees an incomplete one. An existing version is never overwritten.

    Args:
        source: a Keras 3 model; a `tf.Module`, whose functions with an input_signature become signatures,
            `__call__` or the only one the default; a `tf.function` with an input_signature or a concrete
            function; or the path of a `.keras` or `.h5` file or of a SavedModel. A SavedModel is copied file
            by file, except for hidden files, unless it is renamed or gets `image_bytes`; a link that leaves
            its directory is rejected.
        name: name of the model and of its directory.
        version: number of the version; None for the next one, 1 for a new model.
        models_dir: the model repository; created if necessary.
        input_names: new names of inputs by old name, for every signature that has the old name.
        output_names: new names of outputs by old name.
        image_bytes: add a signature `image_bytes` that takes encoded images, see `images.bytes_function`.
            Pixels reach the model as 0 to 255, unscaled.
        warmup: number of warmup records to generate for each signature from its dtypes and shapes. A
            signature that does not accept zeros gets none.
        warmup_data: samples to write as warmup records instead: arrays by (new) input name whose first
            dimension is the number of samples, or the path of an .npz file with them.
        check: called with the directory of the complete version before the rename. It replays the warmup
            records, which the export then leaves to it; an exception cancels the export.

    Raises:
        InvalidInputError: an argument is not valid.
        RepositoryError: the version exists or cannot be written, or a link in a SavedModel leaves its
            directory.
        ExportError: TensorFlow cannot load, save or run the model; or it calls Python functions, which are
            not part of a SavedModel.
        After any exception, also an interrupt, nothing of the version is left on disk.
    """
    check_name(name)
    renaming = Renaming(input_names or {}, output_names or {})
    if warmup < 0:
        raise InvalidInputError(f"warmup must be 0 or more, not {warmup}")
    if warmup and warmup_data is not None:
        raise InvalidInputError("warmup and warmup_data are mutually exclusive; give one of them")
    samples = None if warmup_data is None else load_samples(warmup_data)
    base = Path(models_dir) / name
    sources.check_source(source, base)
    if version is not None:
        versions.check_unused(base, version)

    with quiet_logs(), versions.stage_version(base) as staging:
        if renaming or image_bytes:
            with versions.stage_version(base) as original:
                sources.write(source, original)
                rewrite(original, staging, renaming, image_bytes=image_bytes)
        else:
            sources.write(source, staging)

        _check_ops(staging)
        signatures = read_saved_model(staging)
        if samples is not None:
            write_warmup(staging, encode_samples(name, signatures, samples))
        elif warmup:
            write_generated_warmup(staging, name, signatures, warmup)
        elif renaming.inputs and warmup_file(staging).exists():
            remove_warmup(staging)
            log.warning("the warmup records of the SavedModel use old names and are removed; add new ones")
        if check is not None:
            check(staging)
        elif not warmup and warmup_file(staging).exists():
            failures = run_in_fresh_process(staging)
            if failures:
                raise failed_warmup(failures[0])
        return versions.publish(staging, base, version)


def _check_ops(directory: Path) -> None:
    ops = find_ops(read_graph_file(directory))
    if error := ops.python_error():
        raise ExportError("the model {}; {}".format(*error))
    if note := ops.compiled_note():
        log.warning("the model %s; %s", *note)
