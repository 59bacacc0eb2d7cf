"""What all subcommands share: the parser, how errors are printed, and the exit status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from tfserving.cli.completion import complete, is_completing
from tfserving.errors import InvalidInputError, RepositoryError, TfServingError

FAILED = 1
MISUSE = 2

_EXIT_STATUS = (
    "exit status: 0 done, 1 failed, 2 invalid arguments, values, configuration or model; "
    "128 + N after signal N"
)


def new_parser(
    prog: str, description: str, details: str = "", *, exit_status: str = _EXIT_STATUS
) -> argparse.ArgumentParser:
    """A parser whose --help ends with `details` and the exit status."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"{details}\n{exit_status}" if details else exit_status,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run_command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    run: Callable[[argparse.Namespace], int | None],
    *,
    extra: str = "",
    interrupted: str = "interrupted",
) -> int:
    """Parse `argv`, call `run` and return the exit status; errors are printed to stderr.

    Args:
        parser: parser of the subcommand; its `prog` begins each message.
        argv: arguments; None for those of the process.
        run: the subcommand; returns the exit status, None for 0.
        extra: extra of the package that installs what `run` imports; "" if the package itself does.
        interrupted: message after SIGINT or SIGTERM.
    """
    prog = parser.prog
    with signals_as_interrupts() as signals:
        try:
            if is_completing():
                complete(parser)
            status = run(parser.parse_args(argv)) or 0
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            # The reader has closed the pipe, as `head` does. Without this, the flush at exit fails again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except (KeyboardInterrupt, ImportError, TfServingError) as error:
            # Interrupted while it is imported, TensorFlow raises an ImportError instead.
            if signals:
                return _print_error(f"{prog}: {interrupted}", 128 + signals[0])
            if isinstance(error, ModuleNotFoundError):
                return report_missing_module(prog, error, extra)
            return report_error(prog, error, _status_of(error))


def report_missing_module(prog: str, error: ModuleNotFoundError, extra: str = "") -> int:
    """Print how to install the missing module; returns the exit status."""
    package = f"'tfserving-toolkit[{extra}]'" if extra else "tfserving-toolkit"
    return _print_error(f"{prog}: error: {error}; run: pip install {package}", FAILED)


def report_error(prog: str, error: BaseException, status: int) -> int:
    """Print an error; returns the exit status."""
    return _print_error(f"{prog}: error: {error}", status)


def _status_of(error: BaseException) -> int:
    # A request that the server rejects passed the checks on this side, so the arguments are not to blame.
    from_server = isinstance(error, TfServingError) and error.server_message is not None
    return MISUSE if isinstance(error, InvalidInputError | RepositoryError) and not from_server else FAILED


def _print_error(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


@contextmanager
def signals_as_interrupts() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM, so that unfinished files are removed.

    Yields the list of the signals received so far.
    """
    signals: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
