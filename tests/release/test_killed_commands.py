"""kill -9 at random moments, and two writers: nothing is lost, and the next command cleans up."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.embedded import ROOT
from tests.release.conftest import Release
from tfserving.release.change import Author, open_session
from tfserving.release.config_edit import parse_config_file
from tfserving.release.servers import ServerConnections, name_servers

# For each command, half of them while the change is made.
KILLS = int(os.environ.get("TFSERVING_TEST_KILLS") or 10)
WRITERS = 100

# Command, the command that undoes it, and whether a server takes part.
COMMANDS = [
    (["promote", "digits", "2"], ["promote", "digits", "1"], True),
    (["rollback", "digits", "--to", "3"], ["promote", "digits", "1"], True),
    (["canary", "digits", "2", "--labels-in-use"], ["rollback", "digits"], True),
    (["label", "digits", "canary=1"], ["label", "digits", "canary="], False),
    (["add", "more"], ["remove", "more"], False),
    (["remove", "other"], ["add", "other"], False),
]


class KillableCommands:
    """Commands in forks of another process, which this process may kill."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.release.killable_commands"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, arguments: list[str], kill_after: float | None = None, begun: Path | None = None
    ) -> tuple[int, float]:
        """Run a command; kill it after so many seconds, counted from when `begun` exists."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps([arguments, kill_after, str(self._output), begun and str(begun)])
        print(line, file=self._process.stdin, flush=True)
        status, seconds = json.loads(self._process.stdout.readline())
        return status, seconds

    @property
    def output(self) -> str:
        return self._output.read_text()

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[KillableCommands]:
    made = KillableCommands(tmp_path / "output")
    yield made
    made.close()


def clean_up(release: Release) -> list[str]:
    """What the next command does before its own work; returns what it reports."""
    reports: list[str] = []
    connections = ServerConnections(name_servers(release.addresses) if release.servers else [])
    with open_session(
        release.config, release.models, connections, Author("ada", "next"), timeout=20, report=reports.append
    ):
        return reports


@pytest.mark.parametrize(("command", "undo", "with_server"), COMMANDS, ids=[one[0][0] for one in COMMANDS])
def test_the_next_command_undoes_or_records_what_was_killed(release, killable, command, undo, with_server):
    if with_server:
        release.serve()
        release.succeed("label", "digits", "stable=1")
        if command[0] == "canary":
            release.succeed("label", "digits", "canary=1")
    (release.models / "more").symlink_to("digits")
    before = release.config.read_text()
    arguments = release.arguments(*command)
    for _ in range(2):  # the first run is slower
        status, seconds = killable.run(arguments)
        assert status == 0, killable.output
        after = release.config.read_text()
        release.succeed(*undo)
    begun = release.models / ".models.config.begun"
    rng = random.Random(7)
    outcomes = {"undone": 0, "recorded": 0, "finished": 0, "never begun": 0}
    for number in range(KILLS):
        start = release.config.read_text()
        count = len(release.history)
        if number % 2:
            killable.run(arguments, rng.uniform(0.0, 1.1 * seconds))
        else:
            killable.run(arguments, rng.uniform(0.0, 0.8 * seconds), begun)
        # Whatever is there is a valid config.
        parse_config_file(release.config.read_text(), release.config)
        assert len(release.history) in (count, count + 1)
        reports = clean_up(release)
        assert release.hidden_files() == set()
        now = release.config.read_text()
        new = release.history[count:]
        assert [record.result for record in new] in ([], ["done"], ["undone"])
        is_done = [record.result for record in new] == ["done"]
        assert now == (after if is_done else start)
        interrupted = [report for report in reports if "was interrupted" in report]
        assert len(interrupted) <= 1
        if release.servers:
            wanted = parse_config_file(now, release.config).models[0]
            assert release.available() == [sorted(wanted.policy.versions, reverse=True)]
        if interrupted:
            outcomes["recorded" if is_done else "undone"] += 1
        else:
            outcomes["finished" if is_done else "never begun"] += 1
        if is_done:
            release.succeed(*undo)
    print(f"{command[0]}: {seconds:.3f} s, {outcomes}")
    if command[0] != "remove":
        assert release.config.read_text() == before


def test_no_edit_of_two_writers_is_lost(release):
    writers = [KillableCommands(release.models.parent / f"writer{number}") for number in range(2)]

    def write(writer: int) -> list[int]:
        return [
            writers[writer].run(release.arguments("label", "digits", f"l{number}=1"))[0]
            for number in range(writer, WRITERS, 2)
        ]

    with ThreadPoolExecutor() as pool:
        statuses = [status for one in pool.map(write, range(2)) for status in one]
    for one in writers:
        one.close()
    assert statuses == [0] * WRITERS
    (digits, _) = parse_config_file(release.config.read_text(), release.config).models
    assert digits.labels == {f"l{number}": 1 for number in range(WRITERS)}
    assert len(release.history) == WRITERS
    assert [len(record.before.labels) for record in release.history] == list(range(WRITERS))
