"""What publish, verify and compare share: the options for tolerances, and a table of differences."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfserving.cli.text_table import print_table
from tfserving.client.printable import escape_unprintable
from tfserving.errors import InvalidInputError

if TYPE_CHECKING:
    from tfserving.release.differences import OutputDifference, Tolerance

# Seconds that a version may take to load and to run in a new process.
DEFAULT_RUN_TIMEOUT = 600.0


def add_expect(parser: argparse.ArgumentParser) -> None:
    """Declare --expect and the options for tolerances."""
    parser.add_argument(
        "--expect",
        metavar="FILE.npz",
        help="compare the outputs with expected ones: one array per input and per output, with its name, and "
        "the samples along the first dimension; outputs/NAME is the output where an input has the same name",
    )
    add_tolerance(parser)


def add_tolerance(parser: argparse.ArgumentParser) -> None:
    """Declare the options for tolerances."""
    parser.add_argument(
        "--rtol",
        type=float,
        metavar="R",
        help="relative tolerance for floating-point values (default: 0.0001); others must be equal",
    )
    parser.add_argument(
        "--atol", type=float, metavar="A", help="absolute tolerance, added to that (default: 0.00001)"
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        metavar="SHARE",
        help="for outputs with scores, instead of tolerances: the share of rows (0 to 1) whose largest score "
        "must be at the same place",
    )


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Declare --shape."""
    parser.add_argument(
        "--shape",
        dest="shapes",
        type=_parse_shape,
        action="append",
        default=[],
        metavar="INPUT=SIZExSIZE",
        help="shape of an input in generated requests, without its batch dimension, such as image=224x224x3; "
        "can be repeated (default: 1 for each free dimension)",
    )


def read_shapes(arguments: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """The shapes of `add_shape`, by input name.

    Raises:
        InvalidInputError: an input has two shapes.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in arguments.shapes:
        if name in shapes:
            raise InvalidInputError(f"--shape: input {name!r} has two shapes; give it once")
        shapes[name] = shape
    return shapes


def _parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    if not name or not re.fullmatch("[0-9]+(x[0-9]+)*", sizes):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form INPUT=SIZExSIZE, such as image=224x224x3"
        )
    return name, tuple(map(int, sizes.split("x")))


def read_tolerance(arguments: argparse.Namespace) -> Tolerance:
    """The tolerance of `add_tolerance`.

    Raises:
        InvalidInputError: a value is out of range.
    """
    from tfserving.release.differences import Tolerance

    default = Tolerance()
    return Tolerance(
        default.relative if arguments.rtol is None else arguments.rtol,
        default.absolute if arguments.atol is None else arguments.atol,
        arguments.min_agreement,
    )


def print_differences(differences: Sequence[OutputDifference]) -> None:
    """Print a table with one output per line."""
    rows = [
        (
            escape_unprintable(one.name),
            one.values,
            _format_number(one.largest),
            _format_number(one.mean),
            one.outside,
            "-" if one.agreement is None else f"{one.agreement:.2%}",
            "ok" if one.is_within else escape_unprintable(one.error) or "differs",
        )
        for one in differences
    ]
    print_table(("OUTPUT", "VALUES", "LARGEST", "MEAN", "OUTSIDE", "ARGMAX", "RESULT"), rows)


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
