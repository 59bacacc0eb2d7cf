"""kill -9 at random moments, and two writers: nothing is lost, and the next command cleans up."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.embedded import ROOT
from tests.release.conftest import CONFIG, Release
from tfserving.release.change import Author, open_session
from tfserving.release.config_edit import parse_config_file
from tfserving.release.history import HistoryRecord
from tfserving.release.servers import ServerConnections, available_versions, name_servers
from tfserving.repository.completeness import find_version_error
from tfserving.repository.versions import find_versions, find_withdrawn
from tfserving.repository.warmup_records import read_warmup, warmup_file

# For each command, half of them while the change is made.
KILLS = int(os.environ.get("TFSERVING_TEST_KILLS") or 10)
WRITERS = 100

# A command, and the one that undoes it.
COMMANDS = [
    (["promote", "digits", "2"], ["promote", "digits", "1"]),
    (["rollback", "digits", "--to", "3"], ["promote", "digits", "1"]),
    (["canary", "digits", "2", "--labels-in-use"], ["rollback", "digits"]),
    (["label", "digits", "canary=1"], ["label", "digits", "canary="]),
    (["add", "more"], ["remove", "more"]),
    (["remove", "other"], ["add", "other"]),
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
        self,
        arguments: list[str],
        kill_after: float | None = None,
        begun: Path | None = None,
        kill_in: tuple[str, int] | None = None,
    ) -> tuple[int, float]:
        """Run a command; kill it after so many seconds, counted from when `begun` exists, or in a call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps([arguments, kill_after, str(self._output), begun and str(begun), kill_in])
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
    connections = ServerConnections(name_servers(release.addresses))
    with open_session(
        release.config, release.models, connections, Author("ada", "next"), timeout=20, report=reports.append
    ):
        return reports


def find_served_models(release: Release) -> set[str]:
    """The models of which the server has an available version."""
    with ServerConnections(name_servers(release.addresses)) as connections:
        states = connections.states(connections.servers[0], ["digits", "other", "more"])
    return {name for name, found in states.items() if available_versions(found)}


@pytest.mark.parametrize(("command", "undo"), COMMANDS, ids=[one[0][0] for one in COMMANDS])
def test_the_next_command_undoes_or_records_what_was_killed(release, killable, command, undo):
    release.serve()
    release.succeed("label", "digits", "stable=1")
    if command[0] == "canary":
        release.succeed("label", "digits", "canary=1")
    (release.models / "more").symlink_to("digits")
    before = release.config.read_text()
    arguments = release.arguments(*command)
    times = []
    for _ in range(2):  # the first run is slower
        status, seconds = killable.run(arguments)
        times.append(seconds)
        assert status == 0, killable.output
        after = release.config.read_text()
        release.succeed(*undo)
    seconds = min(times)
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
        configured = parse_config_file(now, release.config).models
        assert release.available() == [sorted(configured[0].policy.versions, reverse=True)]
        assert find_served_models(release) == {model.name for model in configured}
        if interrupted:
            outcomes["recorded" if is_done else "undone"] += 1
        else:
            outcomes["finished" if is_done else "never begun"] += 1
        if is_done:
            release.succeed(*undo)
    print(f"{command[0]}: {seconds:.3f} s, {outcomes}")
    if command[0] != "remove":
        assert release.config.read_text() == before


@pytest.fixture
def many(release: Release, version_dir: Path) -> Path:
    """Five versions of a model m, which no server serves; the directory with all versions."""
    release.serve()
    base = release.models / "m"
    for version in range(1, 6):
        shutil.copytree(version_dir, base / str(version))
    return base


def assert_all_complete(base: Path) -> list[int]:
    """Check each version that servers can see, and its warmup records; returns their numbers."""
    found = find_versions(base)
    for path in found.values():
        assert find_version_error(path) is None
        if warmup_file(path).exists():
            assert len(list(read_warmup(path))) in (1, 2)
    return list(found)


def find_hidden(base: Path) -> list[Path]:
    return [path for path in base.iterdir() if path.name.startswith(".")]


def test_the_next_prune_deletes_what_was_killed(release, killable, many, tmp_path):
    shutil.copytree(many, tmp_path / "copy")
    arguments = release.arguments("prune", "m", "--keep", "1")
    _, seconds = killable.run(arguments)
    rng = random.Random(7)
    interrupted = 0
    for _ in range(KILLS):
        shutil.rmtree(many)
        shutil.copytree(tmp_path / "copy", many)
        count = len(release.history)
        killable.run(arguments, rng.uniform(0.2 * seconds, 1.1 * seconds))
        assert assert_all_complete(many)[-1] == 5
        left = find_withdrawn(many)
        outcome = release.succeed("prune", "m", "--keep", "1")
        for path in left:
            assert f"was interrupted; deleting {path}" in outcome.err
        interrupted += bool(left)
        assert (assert_all_complete(many), find_hidden(many)) == ([5], [])
        assert {record.result for record in release.history} == {"done"}
        assert sorted(find_pruned(release.history[count:])) == [1, 2, 3, 4]
        assert release.config.read_text() == CONFIG
        assert release.hidden_files() == set()
    print(f"prune: {seconds:.3f} s, {interrupted} of {KILLS} interrupted while it deleted")


def find_pruned(records: list[HistoryRecord]) -> list[int]:
    """The versions that prunes deleted, in the order of the history."""
    return [
        version
        for record in records
        for version in record.before.versions
        if version not in record.after.versions
    ]


@pytest.mark.parametrize(
    ("call", "pruned", "left"),
    [
        ("tfserving.repository.versions:withdraw", [], []),
        ("tfserving.repository.versions:withdraw 3", [1, 2], ["1", "2"]),
        ("tfserving.release.history:History.append", [1, 2, 3, 4], ["1", "2", "3", "4"]),
        ("shutil:rmtree 3", [1, 2, 3, 4], ["3", "4"]),
        ("tfserving.release.change_files:ChangeFiles.end_prune", [1, 2, 3, 4], []),
    ],
)
def test_any_next_command_records_and_deletes_what_a_killed_prune_renamed(
    release, killable, many, call, pruned, left
):
    function, _, number = call.partition(" ")
    arguments = release.arguments("prune", "m", "--keep", "1", "--message", "disk full")
    status, _ = killable.run(arguments, kill_in=(function, int(number or 1)))
    assert status == -9, killable.output
    assert [path.name.split(".")[1] for path in find_withdrawn(many)] == left
    outcome = release.succeed("label", "digits", "blue=1")
    assert outcome.err.count("was interrupted; deleting ") == len(left)
    assert find_pruned(release.history[:-1]) == pruned
    assert {record.message for record in release.history[:-1]} <= {"disk full"}
    assert [record.operation for record in release.history] == ["prune"] * bool(pruned) + ["label"]
    assert (assert_all_complete(many), find_hidden(many)) == (sorted({1, 2, 3, 4, 5} - set(pruned)), [])
    assert release.hidden_files() == set()


@pytest.mark.parametrize("command", ["publish", "warmup"])
def test_a_version_is_complete_or_absent_after_a_kill(release, killable, many, command):
    named = ["--models-dir", str(release.models)]
    commands = {
        "publish": [["publish", str(many / "1"), "--name", "m", "--warmup", "1", *named]],
        "warmup": [
            ["warmup", "m/5", "--batch-sizes", sizes, "--server", release.addresses, *named]
            for sizes in ("1", "2,3")
        ],
    }[command]
    _, seconds = killable.run(commands[0])
    rng = random.Random(7)
    interrupted = 0
    for number in range(KILLS):
        before = assert_all_complete(many)
        killable.run(commands[number % len(commands)], rng.uniform(0.1 * seconds, 1.1 * seconds))
        assert assert_all_complete(many)[: len(before)] == before
        left = find_hidden(many)
        for path in left:  # younger ones may belong to a command that runs
            for one in (*path.rglob("*"), path):
                os.utime(one, (0, 0))
        status, _ = killable.run(commands[number % len(commands)])
        assert status == 0, killable.output
        for path in left:
            assert f"removed {path}, which an export that was killed left behind" in killable.output
        interrupted += bool(left)
        assert find_hidden(many) == []
        assert_all_complete(many)
    print(f"{command}: {seconds:.3f} s, {interrupted} of {KILLS} left something behind")


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
