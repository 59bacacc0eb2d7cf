"""Warmup records that have been replayed in a new process, as a server would replay them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tfserving.errors import ExportError
from tfserving.export.replay import Failure, run_version
from tfserving.export.samples import Shapes, can_generate
from tfserving.export.warmup_requests import BATCH_SIZES, encode_samples, generate_requests
from tfserving.repository import versions
from tfserving.repository.warmup_records import move_warmup, write_warmup
from tfserving.wire.dtypes import Array
from tfserving.wire.signatures import Signature, read_saved_model

log = logging.getLogger(__name__)


def write_generated_warmup(
    directory: Path,
    name: str,
    signatures: Mapping[str, Signature],
    count: int,
    *,
    version_dir: Path | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    shapes: Shapes | None = None,
    timeout: float | None = None,
) -> int:
    """Write generated warmup records for each signature that accepts them; returns their number.

    Args:
        directory: where to write them.
        name, signatures, count, batch_sizes, shapes: see `generate_requests`.
        version_dir: the version that replays them; None for `directory`.
        timeout: seconds for the replay, None for no limit.

    Raises:
        ExportError: no signature accepts generated records, or the version cannot be loaded.
        InvalidInputError, DeadlineError: see `generate_requests` and `run_version`.
    """
    requests = generate_requests(name, signatures, count, batch_sizes=batch_sizes, shapes=shapes)
    write_warmup(directory, requests)
    failures: dict[str, Failure] = {}
    run = run_version(version_dir or directory, records_dir=directory, timeout=timeout)
    for failure in run.failures:
        failures.setdefault(failure.signature, failure)
    if not failures:
        return len(requests)
    remaining = {other: signature for other, signature in signatures.items() if other not in failures}
    if not any(map(can_generate, remaining.values())):
        raise failed_warmup(next(iter(failures.values())))
    # A signature may accept only some values, such as the components of a sparse tensor.
    for failure in failures.values():
        log.warning("signature %r gets no warmup records: zeros fail: %s", failure.signature, failure.reason)
    requests = [
        request
        for request, signature in zip(requests, _signatures_of(signatures, count), strict=True)
        if signature not in failures
    ]
    write_warmup(directory, requests)
    return len(requests)


def replace_warmup(
    name: str,
    version_dir: Path,
    *,
    samples: Mapping[str, Array] | None = None,
    batch_sizes: Sequence[int] = (),
    shapes: Shapes | None = None,
    timeout: float | None = None,
    check: Callable[[], object] = lambda: None,
) -> int:
    """Replace the warmup records of a version by one rename, after they have been replayed.

    Args:
        name: name of the model.
        version_dir: directory of the version.
        samples: arrays to make the records of, see `samples.match_samples`; None for zeros.
        batch_sizes: the batch sizes to warm up. With `samples`, a batch repeats them as often as it needs,
            and without batch sizes each sample is a record. Without both, the sizes are 1 and 8.
        shapes: shapes of zeros, see `samples.resolve_shape`.
        timeout: seconds for the replay, None for no limit.
        check: called before the rename; an exception cancels it.

    Returns:
        The number of records.

    Raises:
        ExportError: a record fails, no record can be generated, or the version cannot be loaded.
        InvalidInputError: the samples, sizes or shapes do not fit the signatures.
        RepositoryError: the records cannot be written.
        DeadlineError: the replay took too long.
        After any exception, the version is unchanged.
    """
    signatures = read_saved_model(version_dir)
    # Beside the versions, where servers ignore it and the next export removes it if this process is killed.
    with versions.stage_version(version_dir.parent) as staging:
        if samples is None:
            sizes = tuple(batch_sizes) or BATCH_SIZES
            count = write_generated_warmup(
                staging,
                name,
                signatures,
                len(sizes),
                version_dir=version_dir,
                batch_sizes=sizes,
                shapes=shapes,
                timeout=timeout,
            )
        else:
            requests = encode_samples(name, signatures, samples, batch_sizes=batch_sizes)
            write_warmup(staging, requests)
            count = len(requests)
            run = run_version(version_dir, records_dir=staging, timeout=timeout)
            if run.failures:
                raise failed_warmup(run.failures[0])
        check()
        move_warmup(staging, version_dir)
    return count


def failed_warmup(failure: Failure) -> ExportError:
    """The error for a warmup record that fails."""
    return ExportError(
        f"warmup record {failure.number} (signature {failure.signature!r}) fails, so servers would not load "
        f"the version: {failure.reason}; give valid samples (export: --warmup-data, warmup: --data)"
    )


def _signatures_of(signatures: Mapping[str, Signature], count: int) -> list[str]:
    """The name of the signature of each generated request."""
    return [name for name, signature in signatures.items() if can_generate(signature) for _ in range(count)]
