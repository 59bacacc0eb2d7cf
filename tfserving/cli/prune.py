"""tfserving prune: delete old versions that nothing uses."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.release_command import describe_command, make_reporter
from tfserving.cli.release_options import (
    ReleaseOptions,
    add_release_options,
    connect,
    list_known_servers,
    list_servers,
    print_json,
    read_release_options,
)
from tfserving.errors import InvalidInputError, RepositoryError
from tfserving.release.change import Author, find_user, open_session
from tfserving.release.change_files import ChangeFiles
from tfserving.release.change_lock import hold_change_lock
from tfserving.release.history import History, HistoryRecord, ModelState
from tfserving.release.pruning import (
    PruneStep,
    delete_withdrawn,
    find_configs,
    finish_prune,
    plan_prune,
    prune,
    serves_from,
)
from tfserving.release.served_models import RESPONSE_SECONDS
from tfserving.release.servers import ServerConnections, ServerProcess
from tfserving.repository.model_names import check_name


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving prune") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Deletes all but the newest K versions of a model from disk. Keeps, in addition, every version that "
        "a server has loaded (those of --server, and all that run_tf_serving.sh started here with this model "
        "repository), that a config selects or labels, or that rollback would return to. Deletes nothing if "
        "a server does not respond. Waits while another command changes models.config.",
        f"examples:\n  {prog} digits --keep 3 --dry-run\n  {prog} digits --keep 3\n",
    )
    parser.add_argument("name", metavar="NAME", help="the model, a directory in the model repository")
    parser.add_argument(
        "--keep", metavar="K", type=int, required=True, help="how many of the newest versions to keep"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would happen, and delete nothing")
    add_release_options(parser, "config", "models-dir", "server", "timeout", "message", "json")
    return run_command(parser, argv, lambda arguments: _prune(arguments, prog, describe_command(prog, argv)))


@dataclass(frozen=True)
class _Target:
    """What to prune: a model, and how many versions to keep; `command` is the command line."""

    options: ReleaseOptions
    name: str
    keep: int
    command: str

    @property
    def author(self) -> Author:
        return Author(find_user(), self.command, self.options.message)


def _prune(arguments: argparse.Namespace, prog: str, command: str) -> None:
    options = read_release_options(arguments)
    target = _Target(options, check_name(arguments.name), arguments.keep, command)
    if target.keep < 1:
        raise InvalidInputError(f"--keep {target.keep} is too small; keep at least 1 version")
    base = options.models_dir / target.name
    known = [server for server in list_known_servers(options) if serves_from(server, base)]
    servers = {server.address: server for server in (*known, *list_servers(options))}
    with _hold_lock(target, prog), connect(options, servers.values()) as connections:
        steps = _plan(target, connections, list(servers.values()))
        if not arguments.dry_run:
            for path in delete_withdrawn(base):
                make_reporter(prog)(f"an earlier prune was interrupted; deleted {path}")
            if not all(step.reason for step in steps):
                history = History(options.models_dir)
                prune(ChangeFiles(options.config), history, _make_record(target, steps), base, steps)
    if options.json:
        print_json(_document(target, steps, dry_run=arguments.dry_run))
        return
    verb = "would delete" if arguments.dry_run else "deleted"
    for step in steps:
        what = f"{target.name} {step.version}"
        print(f"kept {what}: {step.reason}" if step.reason else f"{verb} {what}: {step.path}")


@contextmanager
def _hold_lock(target: _Target, prog: str) -> Iterator[None]:
    """Hold the lock of models.config; an interrupted change is finished or undone first."""
    options, report = target.options, make_reporter(prog)
    if not options.models_dir.is_dir():
        raise RepositoryError(f"--models-dir {options.models_dir} is not a directory; name the repository")
    if options.config.exists():
        with open_session(
            options.config,
            options.models_dir,
            connect(options, []),
            target.author,
            timeout=options.timeout,
            report=report,
        ):
            yield
    else:  # servers of one model need none
        lock = ChangeFiles(options.config).lock
        with hold_change_lock(lock, str(target.author), timeout=options.timeout, report=report):
            finish_prune(ChangeFiles(options.config), report)
            yield


def _plan(
    target: _Target, connections: ServerConnections, servers: Sequence[ServerProcess]
) -> list[PruneStep]:
    options = target.options
    return plan_prune(
        options.models_dir / target.name,
        target.keep,
        find_configs(options.config, options.models_dir, servers),
        connections,
        History(options.models_dir).read(),
        timeout=min(options.timeout, RESPONSE_SECONDS),
    )


def _make_record(target: _Target, steps: Sequence[PruneStep]) -> HistoryRecord:
    """The line of the history: `before` and `after` have the versions on disk."""
    return HistoryRecord(
        id=secrets.token_hex(8),
        time="",
        user=target.author.user,
        command=target.command,
        message=target.options.message,
        operation="prune",
        model=target.name,
        before=ModelState(tuple(step.version for step in steps)),
        after=ModelState(tuple(step.version for step in steps if step.reason)),
        diff="",
        servers=(),
        result="",
    )


def _document(target: _Target, steps: Sequence[PruneStep], *, dry_run: bool) -> dict[str, Any]:
    return {
        "model": target.name,
        "dry_run": dry_run,
        "kept": [{"version": step.version, "reason": step.reason} for step in steps if step.reason],
        "deleted": [{"version": step.version, "path": str(step.path)} for step in steps if not step.reason],
    }
