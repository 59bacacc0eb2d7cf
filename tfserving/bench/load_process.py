"""Load processes: each runs a loop, so that the loop shares an interpreter with nothing else."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType

from tfserving.bench.load_loop import LoadLoop, LoadPlan, LoadReport
from tfserving.errors import FailedPreconditionError

# Not "fork": gRPC's threads do not exist in a forked process.
_CONTEXT = multiprocessing.get_context("spawn")
# Seconds until a new process reports.
_START = 60.0


class LoadProcesses:
    """A process for each plan, from `with` on.

    Raises:
        FailedPreconditionError: a process does not start, or exits.
    """

    def __init__(self, plans: Sequence[LoadPlan]) -> None:
        self._plans = plans
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[Connection] = []
        self._is_open: list[bool] = []

    def __enter__(self) -> LoadProcesses:
        for plan in self._plans:
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_run, args=(plan, theirs), name="tfserving-bench", daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
            self._is_open.append(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.terminate()
            process.join()
            pipe.close()

    def wait_until_started(self) -> list[tuple[int, LoadReport]]:
        """Wait for the first report of every process; return all reports that arrived."""
        found: list[tuple[int, LoadReport]] = []
        deadline = time.monotonic() + _START
        while len({number for number, _ in found}) < len(self._plans):
            if time.monotonic() > deadline:
                raise FailedPreconditionError(f"a load process did not start within {_START:g} s")
            found += self.collect(0.1)
        return found

    def collect(self, timeout: float) -> list[tuple[int, LoadReport]]:
        """The reports that arrive within `timeout` seconds, with the number of the process."""
        deadline = time.monotonic() + timeout
        found: list[tuple[int, LoadReport]] = []
        while True:
            left = deadline - time.monotonic()
            open_pipes = [pipe for pipe, is_open in zip(self._pipes, self._is_open, strict=True) if is_open]
            if not open_pipes:
                return found
            ready = wait(open_pipes, max(0.0, left))
            for number, pipe in enumerate(self._pipes):
                if pipe in ready:
                    try:
                        found.append((number, pipe.recv()))
                    except (EOFError, OSError):
                        self._is_open[number] = False
            if left <= 0:
                return found

    def stop(self) -> Iterator[list[tuple[int, LoadReport]]]:
        """Tell the processes to stop; yield reports until the requests in flight are complete."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        while any(self._is_open):
            yield self.collect(0.1)

    def check(self) -> None:
        """Raise FailedPreconditionError if a process has ended."""
        if not all(self._is_open):
            raise FailedPreconditionError("a load process exited; see its error above")


def _run(plan: LoadPlan, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops this process
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    loop = LoadLoop(plan, pipe.fileno(), pipe.send)
    # a pass of the garbage collector would delay all requests in flight
    gc.freeze()
    gc.disable()
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        loop.run()
        pipe.recv()
