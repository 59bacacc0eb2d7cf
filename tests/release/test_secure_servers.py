"""Releases on servers with TLS that require a client certificate and a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release.conftest import CONFIG, Release
from tests.server.certificates import certificate
from tfserving.cli import check_servers, dispatch

TOKEN = "correct-horse"


@pytest.fixture
def secured(release: Release, tmp_path: Path) -> list[str]:
    """Two servers that require a client certificate and a token; the options that connect to them."""
    pem, key = certificate("localhost")
    client_pem, client_key = certificate("client")
    release.serve(2, certificate=(key.encode(), pem.encode()), client_ca=client_pem.encode(), token=TOKEN)
    files = {"--ca": pem, "--cert": client_pem, "--key": client_key, "--token-file": f"{TOKEN}\n"}
    options = []
    for option, text in files.items():
        path = tmp_path / option.lstrip("-")
        path.write_text(text)
        options += [option, str(path)]
    return options


def test_every_command_with_servers_takes_a_client_certificate_and_a_token(release, secured, monkeypatch):
    for words in (
        ("promote", "digits", "2"),
        ("canary", "digits", "1"),
        ("label", "digits", "blue=1"),
        ("rollback", "digits"),
        ("label", "digits", "blue="),
        ("remove", "other"),
        ("add", "other"),
        ("status",),
        ("diff",),
        ("watch", "--once", "--interval", "0.01"),
        ("prune", "digits", "--keep", "1"),
    ):
        release.succeed(*words, *secured)
    first, second = (f"{server.address}/2" for server in release.servers)
    release.succeed("compare", "digits", first, second, *secured)
    # Ops are looked up without the server.
    monkeypatch.setattr(check_servers, "_find_missing_ops", lambda *_: ())
    named = ["--models-dir", str(release.models), "--config", str(release.config)]
    assert dispatch.main(["check", *named, "--server", release.addresses, *secured]) == 0


def test_a_change_that_was_interrupted_is_undone_on_servers_with_tls(release, secured, monkeypatch):
    from tfserving.release import change

    def interrupt(*_: object, **__: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patched:
        patched.setattr(change, "reach_goal", interrupt)
        patched.setattr(change.ChangeSession, "_undo", interrupt)
        with pytest.raises(SystemExit):
            release.run("promote", "digits", "2", *secured)
    assert release.config.read_text() != CONFIG
    outcome = release.succeed("label", "digits", "blue=1", *secured)
    assert "was interrupted; undoing it" in outcome.err
    assert [record.result for record in release.history] == ["undone", "done"]
    assert "blue" in release.config.read_text()


def test_a_server_that_rejects_the_token_is_reported_and_nothing_changes(release, secured):
    message = release.fail("promote", "digits", "2", *secured[:6], "--token", "wrong")
    assert "rejects the request, so nothing was changed: " in message
    assert "a valid token is required" in message
    assert "or --token-file to a command" in message
    assert "wrong" not in message
    assert (release.config.read_text(), release.history) == (CONFIG, [])


def test_a_server_that_rejects_a_missing_client_certificate_is_reported_and_nothing_changes(release, secured):
    message = release.fail("promote", "digits", "2", *secured[:2], *secured[6:], "--timeout", "0.5")
    assert f"server {release.servers[0].address} does not respond, so nothing was changed: " in message
    assert (release.config.read_text(), release.history) == (CONFIG, [])


@pytest.mark.parametrize("option", ["--cert", "--key"])
def test_a_client_certificate_needs_its_key(release, secured, option):
    at = secured.index(option)
    message = release.fail("status", *secured[:2], *secured[at : at + 2], status=2)
    other = "--key" if option == "--cert" else "--cert"
    assert message.endswith(f"{option} needs {other}; give the client certificate and its key, or neither")


def test_a_key_that_is_not_readable_is_reported(release, secured, tmp_path, as_nobody):
    (tmp_path / "key").chmod(0o600)
    with as_nobody():
        message = release.fail("status", *secured, status=2)
    assert message.endswith(f"TLS key: cannot read {tmp_path / 'key'}: Permission denied")


@pytest.mark.parametrize("words", [["--token", TOKEN], [f"--token={TOKEN}"]])
def test_the_history_does_not_contain_a_token(release, secured, words):
    release.succeed("promote", "digits", "2", *secured[:6], *words)
    assert TOKEN not in (release.models / ".history.jsonl").read_text()
    assert "--token" in release.history[0].command
