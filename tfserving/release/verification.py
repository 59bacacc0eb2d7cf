"""Verification of a version on disk: it is complete, and it runs in a new process as expected."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfserving.errors import InvalidInputError, TfServingError
from tfserving.release.differences import OutputDifference, Tolerance, compare_outputs, drop_batch
from tfserving.repository.completeness import find_version_error
from tfserving.repository.warmup_records import warmup_file
from tfserving.wire.signatures import read_saved_model

Expectation = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Verification:
    """The result of `verify_version`.

    Attributes:
        replayed: number of requests that were replayed.
        has_records: whether they are the warmup records of the version; otherwise they were generated.
        samples: number of samples whose outputs were compared with the expected ones.
        differences: the difference of each expected output.
        errors: why the version must not be served, each as a sentence; none if it may be.
    """

    replayed: int = 0
    has_records: bool = False
    samples: int = 0
    differences: tuple[OutputDifference, ...] = ()
    errors: tuple[str, ...] = ()

    def describe(self) -> str:
        """What was done, in a few words."""
        what = "warmup record" if self.has_records else "generated request"
        parts = [f"{_count(self.replayed, what)} replayed"]
        if not self.replayed:
            parts = ["loaded, but not run: its inputs cannot be generated"]
        if self.samples:
            parts.append(f"{_count(self.samples, 'sample')} as expected")
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """This as JSON values."""
        return {
            "verified": not self.errors,
            "replayed": self.replayed,
            "warmup_records": self.has_records,
            "samples": self.samples,
            "outputs": [difference.as_json() for difference in self.differences],
            "errors": list(self.errors),
        }


def verify_version(
    version_dir: Path,
    *,
    expect: Expectation | None = None,
    tolerance: Tolerance | None = None,
    timeout: float | None = None,
) -> Verification:
    """Load a version in a new process, replay its warmup records and compare outputs with expected ones.

    Without warmup records, each signature whose inputs can be generated runs once, with zeros.

    Args:
        version_dir: the directory of the version.
        expect: inputs and expected outputs: arrays by name, or the path of an .npz file with them. See
            `export.samples.match_samples`.
        tolerance: how much the outputs may differ from the expected ones.
        timeout: seconds for all of it, None for no limit.

    Returns:
        What was done. An error of the version is in its `errors`, not raised.

    Raises:
        InvalidInputError: `expect` cannot be read, does not fit the signatures, or has no outputs.
    """
    from tfserving.export.replay import run_version
    from tfserving.export.samples import load_samples, match_samples

    arrays = None if expect is None else load_samples(expect)
    error = find_version_error(version_dir)
    if error is not None:
        return Verification(errors=(f"{version_dir} {error}; copy or export the model again",))
    samples = None if arrays is None else match_samples(read_saved_model(version_dir), arrays)
    if samples is not None and not samples.expected:
        raise InvalidInputError(
            f"the file with expected outputs has only inputs ({', '.join(arrays or ())}); "
            "add an array with the name of an output"
        )
    try:
        run = run_version(
            version_dir,
            requests=samples.encode_requests("model") if samples else (),
            timeout=timeout,
        )
    except InvalidInputError:
        raise
    except TfServingError as failure:
        return Verification(errors=(str(failure),))

    has_records = warmup_file(version_dir).exists()
    errors = [
        f"{'warmup record' if has_records else 'generated request'} {failure.number} "
        f"(signature {failure.signature!r}) fails: {failure.reason}"
        + ("" if has_records else "; add warmup records with valid samples (--warmup-data)")
        for failure in run.failures
    ]
    differences: tuple[OutputDifference, ...] = ()
    if samples is not None:
        failed = [number for number, response in enumerate(run.responses, 1) if isinstance(response, str)]
        if failed:
            errors.append(
                f"{len(failed)} of {len(run.responses)} samples fail, the first is number {failed[0]}: "
                f"{run.responses[failed[0] - 1]}"
            )
        pairs = [
            (drop_batch(response, expected), expected)
            for response, expected in zip(run.responses, samples.expected, strict=True)
            if not isinstance(response, str)
        ]
        outputs, expected_outputs = [one for one, _ in pairs], [other for _, other in pairs]
        differences = compare_outputs(outputs, expected_outputs, tolerance or Tolerance())
        errors += [f"output {one.name!r} {one.describe()}" for one in differences if not one.is_within]
    return Verification(
        run.replayed, has_records, len(samples.inputs) if samples else 0, differences, tuple(errors)
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
