"""tfserving call --input: a request for every few rows of a file, and their outputs in another file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfserving.cli.partial_output import PartialOutput
from tfserving.cli.row_files import RowFile
from tfserving.client.inputs import arrays_for, check_outputs, choose_signature
from tfserving.client.status_errors import is_row_error

if TYPE_CHECKING:
    from tfserving.client.blocking_client import BlockingClient

# Seconds between two updates of the progress bar.
_UPDATE_INTERVAL = 0.1


@dataclass(frozen=True)
class RowsOptions:
    """What to send, and where the outputs go; the names are those of the options of the command."""

    input: str
    output: Path
    batch_size: int
    concurrency: int
    version: int | None
    label: str | None
    signature: str | None
    outputs: Sequence[str] | None


def call_rows(model: BlockingClient, options: RowsOptions, prog: str) -> int:
    """Run the model on the rows of a file, or on those that an interrupted command has left.

    Args:
        model: the client, with the name of the model.
        options: see there.
        prog: name of the command in messages.

    Returns:
        The exit status: 1 if rows failed.

    Raises:
        InvalidInputError: the file cannot be read or does not fit the signature, or the output belongs to
            another job.
        TfServingError: an error that is not one of single rows; the rows before it are kept.
    """
    rows = RowFile(options.input)
    signatures = model.metadata(version=options.version, label=options.label)
    signature = choose_signature(signatures, options.signature or "")
    # what does not fit here, fits in no row
    check_outputs(signature, options.outputs or ())
    arrays_for(signature, rows.make_sample(options.batch_size))
    job = {
        "input": rows.fingerprint,
        "model": model.model_name,
        "version": options.version,
        "label": options.label,
        "signature": signature.name,
        "outputs": sorted(options.outputs or ()),
    }
    with PartialOutput(options.output, job, rows.count) as partial:
        if partial.rows:
            _note(prog, f"continues after row {partial.rows} of {rows.count} in {partial.directory}")
        try:
            _add_results(model, options, rows, partial)
            partial.finish()
        except BaseException:
            if partial.rows and partial.directory.exists():
                _note(prog, f"the rows so far are in {partial.directory}; repeat the command to continue")
            raise
    failed = len(partial.failures)
    print(f"{options.output}: {rows.count} rows{f', {failed} failed' if failed else ''}")
    if failed:
        first = partial.failures[0]
        _note(
            prog,
            f"{failed} of {rows.count} rows failed, see {options.output}.errors.jsonl; "
            f"the first is row {first['row']}: {first['message']}",
        )
    return int(failed > 0)


def _add_results(model: BlockingClient, options: RowsOptions, rows: RowFile, partial: PartialOutput) -> None:
    results = model.infer_many(
        rows.read_rows(partial.rows),
        batch_size=options.batch_size,
        concurrency=options.concurrency,
        version=options.version,
        label=options.label,
        signature=options.signature,
        outputs=options.outputs,
    )
    with closing(results), _progress_bar(rows.count) as show:
        shown_at = 0.0
        for result in results:
            if result.error is not None and not is_row_error(result.error):
                raise result.error
            partial.add(result)
            now = time.monotonic()
            if now - shown_at >= _UPDATE_INTERVAL:
                show(partial.rows, len(partial.failures))
                shown_at = now


@contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[int, int], None]]:
    """A function that shows the numbers of rows that are done and that failed, on a terminal."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        yield lambda done, failed: None
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("rows"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, failed="")

        def show(done: int, failed: int) -> None:
            progress.update(task, completed=done, failed=f"{failed} failed" if failed else "")

        yield show


def _note(prog: str, text: str) -> None:
    print(f"{prog}: {text}", file=sys.stderr)
