"""One change of models.config: written, applied to every server, verified, recorded, and undone if it fails.

docs/decisions/0026-write-ahead-record-of-changes.md explains the order of the steps.
"""

from __future__ import annotations

import difflib
import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tfserving.errors import (
    ConfigError,
    FailedPreconditionError,
    RepositoryError,
    TfServingError,
    UnavailableError,
)
from tfserving.release.change_files import ChangeFiles
from tfserving.release.change_lock import hold_change_lock
from tfserving.release.config_edit import read_config_file
from tfserving.release.history import ABANDONED, DONE, REVERTED, UNDONE, History, HistoryRecord, ModelState
from tfserving.release.pruning import finish_prune
from tfserving.release.server_goals import Goal, reach_goal
from tfserving.release.servers import ServerConnections, ServerProcess, has_responded, is_same_file
from tfserving.release.state_copies import write_state_copy


class ChangeFailedError(FailedPreconditionError):
    """A change that was undone; the message says which server, which version and why.

    Attributes:
        record: the line of the history; None if nothing was changed.
    """

    def __init__(self, message: str, record: HistoryRecord | None = None) -> None:
        super().__init__(message)
        self.record = record


@dataclass(frozen=True)
class Step:
    """A text of models.config on the way from one state to the next.

    Attributes:
        text: the whole file.
        forward: what each server must have reached before the next step.
        backward: what each server must have reached before the step before it, on the way back.
        action: called once `forward` is reached; if it raises a TfServingError, the change is undone.
        about: what happens, for the user.
    """

    text: str
    forward: Goal = field(default_factory=Goal)
    backward: Goal = field(default_factory=Goal)
    action: Callable[[], None] | None = None
    about: str = ""


@dataclass(frozen=True)
class PlannedChange:
    """What a command wants to do.

    Attributes:
        operation, model: see `HistoryRecord`.
        before, after: the states of the model.
        steps: the texts of the file in order. The last one remains; without servers, only it is written.
        start: what each server must have reached again when the change was undone.
    """

    operation: str
    model: str
    before: ModelState | None
    after: ModelState | None
    steps: tuple[Step, ...]
    start: Goal = field(default_factory=Goal)


@dataclass(frozen=True)
class Author:
    """Who makes a change: the user, the command line, and the text of --message."""

    user: str
    command: str
    message: str = ""

    def __str__(self) -> str:
        return f"{self.user} (process {os.getpid()} on {socket.gethostname()}): {self.command}"


class ChangeSession:
    """What may be done while the lock of a models.config is held; made by `open_session`.

    Attributes:
        text: the text of models.config.
        connections: the servers.
        history: the history of the model repository.
        timeout: seconds to wait for the servers at each step.
        report: called with what happens, one line each.
    """

    def __init__(
        self,
        files: ChangeFiles,
        history: History,
        connections: ServerConnections,
        author: Author,
        timeout: float,
        report: Callable[[str], None],
    ) -> None:
        self._files = files
        self._author = author
        self._at = 0
        self.history = history
        self.connections = connections
        self.timeout = timeout
        self.report = report
        self.text = ""

    def finish_interrupted(self) -> None:
        """Record or undo a change whose command was killed, and report it; finish a prune."""
        finish_prune(self._files, self.report)
        begun, verified = self._files.read_record()
        if begun is None:
            self._files.end()  # files that were written before the record
            return
        line = HistoryRecord.from_json(begun["line"])
        history = History(Path(begun["models_dir"]))
        if any(known.id == line.id for known in history.read()):
            self._files.end()
            return
        steps = [Step(text, backward=_read_goal(goal)) for text, goal in begun["steps"]]
        with self.connections.to(map(_read_server, begun["servers"])) as connections:
            if verified:
                self.report(f"`{line.command}` was interrupted when it had succeeded; recording it")
                self._copy_state(connections, steps[-1].text)
                self._end(history, line, DONE)
                return
            texts = [step.text for step in steps]
            self._files.rescue_edit(set(texts))
            current = self._files.read_config()
            if current not in texts:
                self.report(
                    f"`{line.command}` was interrupted, and {self._files.config} was edited afterwards; the "
                    "file is kept"
                )
                self._end(history, line, ABANDONED, "interrupted; models.config was edited afterwards")
                return
            self.report(f"`{line.command}` was interrupted; undoing it")
            at = len(texts) - 1 - texts[::-1].index(current)
            # The command may have been on its way back, with servers one step ahead of the file.
            failures = self._go_back(connections, steps, at, current, again=at < len(steps) - 1)
        for failure in failures:
            self.report(failure)
        self._end(history, line, UNDONE, "; ".join(["interrupted", *failures]))

    def apply(self, change: PlannedChange) -> HistoryRecord:
        """Carry out a change; returns its line of the history.

        Raises:
            ChangeFailedError: it failed and was undone.
            RepositoryError: the files cannot be written, and nothing was changed; or the change is in force,
                but the history cannot be written.
        """
        servers = self.connections.servers
        for server in servers:
            if problem := server.problem or self._find_conflict(server):
                raise FailedPreconditionError(f"server {server}: {problem}; nothing was changed")
        line = HistoryRecord(
            id=secrets.token_hex(8),
            time="",
            user=self._author.user,
            command=self._author.command,
            message=self._author.message,
            operation=change.operation,
            model=change.model,
            before=change.before,
            after=change.after,
            diff=_diff(self.text, change.steps[-1].text, self._files.config.name),
            servers=tuple(map(str, servers)),
            result="",
        )
        self.history.check_writable()
        start = Step(self.text, backward=change.start)
        steps = [start, *(change.steps if servers else change.steps[-1:])]
        self._files.begin(
            {
                "line": line.to_json(),
                "models_dir": os.path.abspath(self.history.path.parent),
                "servers": [_describe_server(server) for server in servers],
                "steps": [(step.text, asdict(step.backward)) for step in steps],
            }
        )
        try:
            self._go_forward(steps)
        except BaseException as error:
            self._undo(line, steps, error)
            raise
        self._files.mark_verified()
        self._copy_state(self.connections, steps[-1].text)
        return self._end(self.history, line, DONE)

    def _find_conflict(self, server: ServerProcess) -> str:
        """Why a change would replace what a server serves; "" if it uses this models.config or a copy."""
        if server.config is None or is_same_file(server.config, self._files.config):
            return ""
        try:
            if read_config_file(server.config) == self.text:
                return ""
        except ConfigError:  # for example of a container on another machine
            return ""
        return (
            f"it reads {server.config}, which differs from {self._files.config}, and a change replaces all "
            "its models; pass --config for its file, or name only servers of one config"
        )

    def _go_forward(self, steps: Sequence[Step]) -> None:
        self._at = 0
        for index, step in enumerate(steps[1:], start=1):
            if step.about and self.connections.servers:
                self.report(step.about)
            # The file comes first: a server that polls would return to it.
            self._files.replace_config(step.text, expected=steps[index - 1].text)
            self._at = index
            for server in self.connections.servers:
                self._reload(self.connections, server, step.text)
            for server in self.connections.servers:
                reach_goal(self.connections, server, step.forward, timeout=self.timeout)
            if step.action is not None:
                step.action()

    def _undo(self, line: HistoryRecord, steps: Sequence[Step], error: BaseException) -> None:
        """Go back after `error`, record it, and raise what the user should read."""
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or repr(error)
        if isinstance(error, OSError):
            reason = f"cannot write {self._files.config}: {error.strerror}"
        at, current = self._find_step(steps)
        if at == 0:
            self._files.end()
            if isinstance(error, TfServingError | OSError):
                raise ChangeFailedError(f"{reason}; nothing was changed") from error
            return
        self.report(f"{reason}; going back")
        failures = self._go_back(self.connections, steps, at, current)
        self._copy_state(self.connections, steps[0].text)
        record = self._end(self.history, line, REVERTED, "; ".join([reason, *failures]))
        if isinstance(error, TfServingError | OSError):
            undone = "the change was undone" + (" on every server" if self.connections.servers else "")
            if failures:
                undone = f"the change was undone, but not everywhere: {'; '.join(failures)}"
            raise ChangeFailedError(f"{reason}; {undone}", record) from error

    def _find_step(self, steps: Sequence[Step]) -> tuple[int, str | None]:
        """The step that the file is at, and its text; None if somebody else has edited the file."""
        self._files.rescue_edit({step.text for step in steps})
        try:
            current = self._files.read_config()
        except ConfigError:
            return self._at, None
        # An interrupt may have come between the rename and the note of it.
        for at in (self._at, self._at + 1):
            if at < len(steps) and steps[at].text == current:
                return at, current
        return self._at, None

    def _go_back(
        self,
        connections: ServerConnections,
        steps: Sequence[Step],
        at: int,
        current: str | None,
        *,
        again: bool = False,
    ) -> list[str]:
        """Take the file and the servers from step `at` back to step 0; returns what failed.

        It goes through every step: a version that a later step has unloaded must be loaded again before a
        label returns to it.

        Args:
            current: the text of the file; None if the file is not ours to change any more.
            again: whether to apply step `at` itself as well.
        """
        failures: dict[str, str] = {}
        unreachable: set[str] = set()
        for index in range(at, -1, -1):
            step = steps[index]
            try:
                if current is not None and index == 0:
                    self._files.restore_config(step.text, expected=current)
                elif current is not None:
                    self._files.replace_config(step.text, expected=current)
                    current = step.text
            except TfServingError as error:
                failures["file"], current = str(error), None
            except OSError as error:
                # On a full disk, only step 0 can be written; a server that polls goes there directly.
                if index == 0:
                    failures["file"] = f"cannot restore {self._files.config}: {error.strerror}"
            if index == at > 0 and not again:
                continue
            for server in connections.servers:
                if server.address in unreachable and index > 0:
                    continue
                try:
                    self._reload(connections, server, step.text)
                    reach_goal(connections, server, step.backward, timeout=self.timeout)
                    failures.pop(server.address, None)
                except TfServingError as error:
                    failures[server.address] = str(error)
                    if error.code == "UNAVAILABLE":
                        unreachable.add(server.address)
        return list(failures.values())

    def _reload(self, connections: ServerConnections, server: ServerProcess, text: str) -> None:
        try:
            connections.reload(server, text, timeout=self.timeout)
        except TfServingError as error:
            detail = error.server_message or str(error)
            if has_responded(error):
                raise FailedPreconditionError(f"server {server} rejects the config: {detail}") from error
            raise UnavailableError(f"server {server} does not respond: {detail}") from error

    def _copy_state(self, connections: ServerConnections, text: str) -> None:
        for server in connections.servers:
            if failure := write_state_copy(server, text):
                self.report(f"note: {failure}")

    def _end(self, history: History, line: HistoryRecord, result: str, reason: str = "") -> HistoryRecord:
        """Append the line to the history, and end the change."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = replace(line, time=now, result=result, reason=reason)
        try:
            history.append(record)
        except OSError as error:
            state = "is in force" if result == DONE else "was undone"
            raise RepositoryError(
                f"the change {state}, but it cannot be recorded in {history.path}: {error.strerror}; the "
                "next command records it"
            ) from error
        self._files.end()
        return record


@contextmanager
def open_session(
    config: Path,
    models_dir: Path,
    connections: ServerConnections,
    author: Author,
    *,
    timeout: float,
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[ChangeSession]:
    """Hold the lock of a models.config, after an interrupted change was recorded or undone.

    Args:
        config: the models.config.
        models_dir: the model repository, which has the history.
        connections: to the servers where changes are applied; without any, only the file changes.
        author: who makes the change.
        timeout: seconds to wait for the lock, and for the servers at each step.
        report: called with what happens, one line each.

    Raises:
        ConfigError: models.config or the history cannot be read.
        DeadlineError: another command holds the lock; the message names it.
        RepositoryError: the model repository does not exist, or a directory is not writable.
    """
    files = ChangeFiles(config)
    if not models_dir.is_dir():
        raise RepositoryError(f"{models_dir} is not a directory; pass the model repository with --models-dir")
    files.read_config()  # a wrong path is reported before a lock is created beside it
    holder = f"{author}, since {time.strftime('%H:%M:%S')}"
    with hold_change_lock(files.lock, holder, timeout=timeout, report=report):
        with connections:
            session = ChangeSession(files, History(models_dir), connections, author, timeout, report)
            session.finish_interrupted()
            session.text = files.read_config()
            yield session


def find_user() -> str:
    """The name of the user, or the number of one without an entry in the user database."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _describe_server(server: ServerProcess) -> dict[str, str]:
    """What a later command needs in order to undo the change."""
    copy = str(server.active_config.absolute()) if server.active_config else ""
    container = server.container_id
    return {"name": server.name, "address": server.address, "active_config": copy, "container_id": container}


def _read_server(document: Mapping[str, str]) -> ServerProcess:
    copy = document["active_config"]
    return ServerProcess(
        document["name"],
        document["address"],
        active_config=Path(copy) if copy else None,
        container_id=document["container_id"],
    )


def _read_goal(document: Mapping[str, Any]) -> Goal:
    return Goal(document["model"], tuple(document["available"]), document["only"])


def _diff(before: str, after: str, name: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), name, name, n=1
    )
    return "".join(lines)
