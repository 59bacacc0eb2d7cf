"""What promote, rollback, canary, label, add and remove share: the session, and how its result is printed."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tfserving.cli.release_options import (
    ReleaseOptions,
    add_release_options,
    connect,
    list_known_servers,
    list_servers,
    print_json,
    read_release_options,
)
from tfserving.release.change import (
    Author,
    ChangeFailedError,
    ChangeSession,
    PlannedChange,
    find_user,
    open_session,
)
from tfserving.release.config_edit import parse_config_file
from tfserving.release.history import HistoryRecord, ModelState
from tfserving.release.rollout import ModelFacts, gather_facts, is_in_force
from tfserving.repository.config import ServerConfig
from tfserving.repository.diagnostics import list_numbers

EXIT_STATUS = (
    "If the change fails, everything goes back to the config before it, on all servers, and the exit status "
    "is 1.\nWithout a server, only the file changes.\n"
)


@dataclass(frozen=True)
class ReleaseCommand:
    """A command that changes models.config, while it holds the lock."""

    session: ChangeSession
    options: ReleaseOptions
    prog: str

    @property
    def config(self) -> ServerConfig:
        """The models of models.config."""
        return parse_config_file(self.session.text, self.options.config)

    def facts(self, name: str) -> ModelFacts:
        """What is known of a model."""
        return gather_facts(
            self.session.text,
            name,
            config_path=self.options.config,
            models_dir=self.options.models_dir,
            connections=self.session.connections,
        )

    def apply(self, change: PlannedChange, facts: ModelFacts | None = None) -> None:
        """Carry out a change and print the result; nothing if `facts` show that it is in force already."""
        if facts is not None and is_in_force(facts, change):
            self.session.report(f"{change.model}: nothing to change")
            if self.options.json:
                print_json({"result": "unchanged", "model": change.model})
            return
        try:
            record = self.session.apply(change)
        except ChangeFailedError as error:
            if self.options.json and error.record is not None:
                print_json(error.record.to_json())
            raise
        if self.options.json:
            print_json(record.to_json())
        else:
            print(_describe(record))


def add_change_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a command that changes models.config."""
    add_release_options(parser, "config", "models-dir", "server", "timeout", "message", "json")


@contextmanager
def open_command(
    arguments: argparse.Namespace, prog: str, argv: Sequence[str] | None
) -> Iterator[ReleaseCommand]:
    """Lock models.config for a command, after an interrupted command was finished or undone."""
    options = read_release_options(arguments)
    report = make_reporter(prog)
    servers = list_servers(options)
    if not servers:
        for server in list_known_servers(options):
            if server.problem:
                report(f"note: {server} is not changed: {server.problem}")
        report("note: no server uses this config; only the file changes (--server names servers)")
    author = Author(find_user(), describe_command(prog, argv), options.message)
    with open_session(
        options.config,
        options.models_dir,
        connect(options, servers),
        author,
        timeout=options.timeout,
        report=report,
    ) as session:
        yield ReleaseCommand(session, options, prog)


def describe_command(prog: str, argv: Sequence[str] | None) -> str:
    """The command line for the history and the lock, without the token that it may contain."""
    words = [*prog.split(), *(sys.argv[1:] if argv is None else argv)]
    for index, word in enumerate(words):
        if word.startswith("--token="):
            words[index] = "--token=..."
        elif word == "--token":
            words[index + 1 : index + 2] = ["..."]
    return shlex.join(words)


def make_reporter(prog: str) -> Callable[[str], None]:
    """A function that prints one line to stderr."""
    return lambda text: print(f"{prog}: {text}", file=sys.stderr, flush=True)


def _describe(record: HistoryRecord) -> str:
    after = record.after
    where = f" on {', '.join(record.servers)}" if record.servers else " in the file"
    if after is None:
        return f"{record.model}: removed{where}"
    return f"{record.model}: {_describe_state(after)}{where}"


def _describe_state(state: ModelState) -> str:
    several = "versions" if len(state.versions) > 1 else "version"
    text = f"{several} {list_numbers(state.versions)}"
    if state.labels:
        text += (
            " (" + ", ".join(f"{label}={version}" for label, version in sorted(state.labels.items())) + ")"
        )
    return text
