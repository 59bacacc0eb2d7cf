"""The inputs that `tfserving bench` and `tfserving tune` send: their options, and the requests."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tfserving.cli.call_inputs import read_inputs
from tfserving.errors import InvalidInputError

if TYPE_CHECKING:
    from tfserving.bench.workload import Workload
    from tfserving.wire.model_spec import ModelSpec
    from tfserving.wire.signatures import Signature

INPUT_DETAILS = """\
inputs, one of:
  --data FILE.npz          arrays by name of the input
  --warmup-records FILE    the requests of assets.extra/tf_serving_warmup_requests
  neither                  generated from the signature: floats from 0 to 1, zeros for other numbers
"""


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add --signature, --data, --warmup-records, --batch-size and --shape."""
    add = parser.add_argument
    add("--signature", metavar="NAME", default="", help="signature (default: serving_default)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="FILE", help="file with the inputs (.npz)")
    source.add_argument("--warmup-records", metavar="FILE", help="file with warmup records")
    add(
        "--batch-size",
        type=parse_positive,
        metavar="N",
        help="rows in a request (default: with --data all rows of the file, without it 1)",
    )
    add(
        "--shape",
        action="append",
        type=_parse_shape,
        default=[],
        metavar="NAME=SIZES",
        help="shape of a generated input, such as image=1x224x224x3; can be repeated",
    )


def check_input_options(arguments: argparse.Namespace) -> None:
    """Raise InvalidInputError if options contradict each other."""
    if arguments.shape and (arguments.data or arguments.warmup_records):
        raise InvalidInputError("--shape is for generated inputs; omit it with --data and --warmup-records")
    if arguments.warmup_records and (arguments.batch_size or arguments.signature):
        option = "--batch-size" if arguments.batch_size else "--signature"
        raise InvalidInputError(f"--warmup-records determines the requests; omit {option}")
    if arguments.data and not arguments.data.endswith(".npz"):
        raise InvalidInputError(f"--data {arguments.data} is not an .npz file; write one with numpy.savez")


def make_workload(
    arguments: argparse.Namespace, spec: ModelSpec, signatures: Mapping[str, Signature]
) -> Workload:
    """The requests that the options describe, for gRPC or with --rest for REST.

    Raises:
        TfServingError: see `WorkloadFactory`.
    """
    from tfserving.bench.workload import WorkloadFactory

    factory = WorkloadFactory(spec, signatures, is_grpc=not arguments.rest)
    if arguments.warmup_records:
        return factory.from_records(Path(arguments.warmup_records))
    if arguments.data:
        return factory.from_arrays(read_inputs([arguments.data]), arguments.batch_size, arguments.data)
    return factory.from_signature(dict(arguments.shape), arguments.batch_size)


def parse_positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**6):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 999999")
    return int(text)


def _parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, separator, sizes = text.rpartition("=")
    parts = sizes.split("x")
    if not (separator and name and all(part.isascii() and part.isdigit() for part in parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SIZES, such as image=1x224x224x3")
    return name, tuple(map(int, parts))
