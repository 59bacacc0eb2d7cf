"""Changes that fail: everything goes back, on all servers, and the message says why."""

from __future__ import annotations

import resource
import threading
import time

import pytest

from tests.release.conftest import CHANGES, CONFIG, Release
from tfserving.release import change as change_module
from tfserving.release import servers as servers_module
from tfserving.release.change_files import ChangeFiles
from tfserving.release.change_lock import hold_change_lock
from tfserving.release.servers import ServerProcess


def assert_unchanged(release: Release) -> None:
    assert release.config.read_text() == CONFIG
    assert release.available() == [[1]] * len(release.servers)
    assert release.hidden_files() == set()


@pytest.mark.parametrize("command", [("promote", "2"), ("canary", "2", "--labels-in-use")])
def test_both_servers_go_back_if_one_cannot_load_the_version(release, command):
    release.serve(2)
    release.break_version(2, release.servers[1])
    name, *rest = command
    message = release.fail(name, "digits", *rest)
    bad = release.servers[1].address
    assert f'server {bad}: version 2 of model "digits" failed to load: ' in message
    assert "the graph of 2 is damaged" in message
    assert message.endswith("the change was undone on every server")
    assert_unchanged(release)
    (record,) = release.history
    assert (record.result, bad in record.reason) == ("reverted", True)


def test_a_failed_change_is_no_step_of_a_rollback(release):
    release.serve()
    release.succeed("promote", "digits", "2")
    release.break_version(3)
    release.fail("promote", "digits", "3")
    release.succeed("rollback", "digits")
    assert release.available() == [[1]]


def test_an_added_model_that_fails_is_removed_again(release):
    release.serve(2)
    (release.models / "more").symlink_to("digits")
    release.break_version(3, release.servers[1])
    message = release.fail("add", "more")
    assert f"server {release.servers[1].address} rejects the config" in message
    assert_unchanged(release)
    assert release.available("other") == [[1], [1]]


def test_a_server_that_does_not_respond_changes_nothing(release):
    release.serve(2)
    release.servers[1].stop()
    message = release.fail("promote", "digits", "2")
    assert f"server {release.servers[1].address} does not respond, so nothing was changed" in message
    assert release.config.read_text() == CONFIG
    assert release.history == []


@pytest.mark.parametrize("command", CHANGES, ids=lambda words: words[0])
def test_the_others_go_back_if_a_server_vanishes(release, monkeypatch, command):
    release.serve(2)
    release.succeed("promote", "digits", "2")
    before = release.config.read_text()
    (release.models / "more").symlink_to("digits")
    reach_goal = change_module.reach_goal

    def vanish(connections, server, goal, **options):
        release.servers[1].stop()
        reach_goal(connections, server, goal, **options)

    monkeypatch.setattr(change_module, "reach_goal", vanish)
    message = release.fail(*command)
    gone = release.servers.pop(1).address
    assert f"server {gone} does not respond" in message
    assert "the change was undone, but not everywhere" in message
    assert release.config.read_text() == before
    assert (release.available(), release.available("other")) == ([[2]], [[1]])
    assert release.hidden_files() == set()
    assert [record.result for record in release.history] == ["done", "reverted"]


def test_a_version_that_was_unloaded_is_loaded_again_before_its_label_returns(release, monkeypatch):
    release.serve(2)
    release.succeed("label", "digits", "stable=1")
    before = release.config.read_text()
    reload = change_module.ServerConnections.reload

    def reject(self, server, text, **options):
        if server.address == release.servers[1].address and "versions: 1" not in text:
            raise change_module.FailedPreconditionError("no")
        reload(self, server, text, **options)

    monkeypatch.setattr(change_module.ServerConnections, "reload", reject)
    message = release.fail("promote", "digits", "2")
    assert f"server {release.servers[1].address} rejects the config: no; the change was undone" in message
    assert release.config.read_text() == before
    assert release.available() == [[1], [1]]
    assert release.labelled("stable") == [1, 1]


def test_an_edit_during_a_change_is_kept(release, monkeypatch):
    release.serve()
    edited = CONFIG.replace("ranking", "search")
    reach_goal = change_module.reach_goal

    def edit(connections, server, goal, **options):
        if release.config.read_text() != edited:
            new = release.models / "editor"
            new.write_text(edited)
            new.rename(release.config)
        reach_goal(connections, server, goal, **options)

    monkeypatch.setattr(change_module, "reach_goal", edit)
    message = release.fail("promote", "digits", "2")
    assert "was edited by another program during the change; its present content is kept" in message
    assert release.config.read_text() == edited
    assert release.available() == [[1]]
    assert release.hidden_files() == set()


def test_an_edit_between_reading_and_renaming_is_kept(release, monkeypatch):
    edited = CONFIG.replace("ranking", "search")
    write = ChangeFiles._write

    def edit(self, path, data, like=None):
        write(self, path, data, like)
        if like is not None:
            release.config.write_text(edited)

    monkeypatch.setattr(ChangeFiles, "_write", edit)
    assert "was edited by another program" in release.fail("promote", "digits", "2")
    assert release.config.read_text() == edited
    assert release.history == []


def test_a_full_disk_leaves_the_config_and_the_history(release):
    release.serve()
    release.succeed("label", "digits", "stable=1")
    before = release.config.read_text()
    lines = (release.models / ".history.jsonl").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    results = set()
    for limit in (0, 100, len(before) - 1, len(before) + 20, 3000, len(lines) + 100):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            outcome = release.run("promote", "digits", "2")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "Traceback" not in outcome.err
        assert outcome.status in (0, 1, 2), outcome
        results.add(outcome.status)
        # The next command finishes or undoes what was begun.
        release.succeed("label", "digits", "stable=1" if release.available() == [[1]] else "stable=2")
        assert all(record.result for record in release.history)
        assert release.hidden_files() == set()
        assert (release.models / ".history.jsonl").read_bytes().startswith(lines)
        if release.available() == [[2]]:
            release.succeed("promote", "digits", "1")
        assert release.config.read_text() == before
    assert len(results) > 1 or results == {1}


def test_a_read_only_directory_is_reported_and_nothing_changes(release, as_nobody):
    release.serve()
    with as_nobody():
        message = release.fail("promote", "digits", "2", status=2)
    assert "Permission denied; nothing was changed" in message
    assert_unchanged(release)


def test_a_second_command_waits_for_the_first_and_names_it(release):
    held = threading.Event()
    done = threading.Event()

    def hold():
        lock = release.models / ".models.config.lock"
        with hold_change_lock(lock, "ada (process 7 on lab): tfserving promote digits 2", timeout=5):
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    message = release.fail("promote", "digits", "2", "--timeout", "0.1")
    assert (
        "is being changed by ada (process 7 on lab): tfserving promote digits 2; nothing was changed"
        in message
    )
    threading.Timer(0.3, done.set).start()
    started = time.monotonic()
    outcome = release.succeed("promote", "digits", "2")
    assert "waiting for ada" in outcome.err
    assert time.monotonic() - started > 0.2
    thread.join()


@pytest.fixture
def baked(release, monkeypatch):
    """A server with its config in the image, which run_tf_serving.sh started."""
    release.serve()
    problem = "it reads the models.config in its image"
    server = ServerProcess("tfserving", release.servers[0].address, problem=problem)
    monkeypatch.setattr(servers_module, "find_servers", lambda *_, **__: [server])
    return release


def test_a_server_whose_config_is_in_its_image_is_refused(baked):
    message = baked.fail("promote", "digits", "2")
    assert "server tfserving (127.0.0.1:" in message
    assert "it reads the models.config in its image; nothing was changed" in message
    assert_unchanged(baked)


@pytest.mark.parametrize("same", [True, False])
def test_a_server_of_another_config_is_refused(release, monkeypatch, tmp_path, same):
    release.serve(2)
    other = tmp_path / "other.config"
    other.write_text(CONFIG if same else CONFIG.replace("ranking", "search"))
    known = [ServerProcess("tfserving", release.servers[1].address, config=other)]
    monkeypatch.setattr(servers_module, "find_servers", lambda *_, **__: known)
    if same:
        release.succeed("promote", "digits", "2")
        assert release.available() == [[2], [2]]
        return
    message = release.fail("promote", "digits", "2")
    assert f"it reads {other}, which differs from {release.config}" in message
    assert_unchanged(release)


def test_a_server_that_is_not_changed_is_mentioned(baked):
    server = baked.servers.pop()  # not named with --server
    outcome = baked.succeed("promote", "digits", "2")
    server.stop()
    assert "is not changed: it reads the models.config in its image" in outcome.err
