"""promote, rollback, canary, label, add and remove: what servers, models.config and the history are "
"afterwards."""

from __future__ import annotations

import pytest

from tests.release.conftest import CONFIG
from tfserving.release.config_edit import encode_config

PINNED = "specific { versions: %s }"


def pin(text: str, *versions: int) -> str:
    """CONFIG with these versions of digits."""
    listed = " ".join(f"versions: {version}" for version in versions)
    return text.replace("specific { versions: 1 }", f"specific {{ {listed} }}")


@pytest.fixture(params=[1, 2], ids=["one server", "two servers"])
def served(release, request):
    release.serve(request.param)
    return release


def test_promote_serves_a_newer_version_and_unloads_the_old_one(served):
    outcome = served.succeed("promote", "digits", "2", "--message", "better on 7")
    assert outcome.out.startswith("digits: version 2 on 127.0.0.1:")
    assert served.available() == [[2]] * len(served.servers)
    assert served.config.read_text() == pin(CONFIG, 2)
    (record,) = served.history
    assert (record.operation, record.model, record.result) == ("promote", "digits", "done")
    assert (record.before.promoted, record.after.promoted) == (1, 2)
    assert record.message == "better on 7"
    assert record.command.startswith("tfserving promote ")
    assert " digits 2 " in record.command
    assert "-    model_version_policy { specific { versions: 1 } }" in record.diff
    assert served.hidden_files() == set()


def test_promote_serves_an_older_version(served):
    served.succeed("promote", "digits", "3")
    served.succeed("promote", "digits", "2")
    assert served.available() == [[2]] * len(served.servers)


def test_promote_moves_the_labels_of_the_promoted_version_and_keeps_others(served):
    served.succeed("promote", "digits", "2")
    served.succeed("label", "digits", "blue=2")
    served.succeed("canary", "digits", "1")
    served.succeed("label", "digits", "legacy=1")
    served.succeed("promote", "digits", "3")
    assert served.available() == [[3, 1]] * len(served.servers)
    for label, version in (("blue", 3), ("stable", 3), ("canary", 3), ("legacy", 1)):
        assert served.labelled(label) == [version] * len(served.servers)


def test_promote_rejects_a_version_below_one_that_a_label_keeps_loaded(release):
    release.serve()
    release.succeed("promote", "digits", "3")
    release.succeed("canary", "digits", "2")
    release.succeed("label", "digits", "late=3", "stable=2")
    message = release.fail("promote", "digits", "1")
    assert "label 'late' keeps version 3" in message
    assert "tfserving label digits late=1" in message


def test_rollback_goes_back_step_by_step(served):
    served.succeed("promote", "digits", "2")
    served.succeed("promote", "digits", "3")
    served.succeed("rollback", "digits")
    assert served.available() == [[2]] * len(served.servers)
    served.succeed("rollback", "digits")
    assert served.available() == [[1]] * len(served.servers)
    assert 'has no version of model "digits" that was promoted before 1' in served.fail("rollback", "digits")
    assert served.config.read_text() == CONFIG


def test_rollback_to_a_version(release):
    release.serve()
    release.succeed("promote", "digits", "3")
    release.succeed("rollback", "digits", "--to", "2")
    assert release.available() == [[2]]
    release.succeed("rollback", "digits")
    assert release.available() == [[3]]


def test_canary_serves_both_versions_with_labels(served):
    count = len(served.servers)
    served.succeed("canary", "digits", "2", "--labels-in-use")
    assert served.available() == [[2, 1]] * count
    assert (served.labelled("stable"), served.labelled("canary")) == ([1] * count, [2] * count)
    served.succeed("canary", "digits", "3", "--labels-in-use")
    assert served.available() == [[3, 1]] * count
    served.succeed("rollback", "digits")
    assert served.available() == [[1]] * count
    assert (served.labelled("stable"), served.labelled("canary")) == ([1] * count, [1] * count)


def test_rollback_ends_a_canary_below_the_promoted_version(release):
    release.serve()
    release.succeed("promote", "digits", "3")
    release.succeed("canary", "digits", "2")
    release.succeed("rollback", "digits")
    assert release.available() == [[3]]
    assert (release.labelled("stable"), release.labelled("canary")) == ([3], [3])
    release.succeed("rollback", "digits")
    assert release.available() == [[1]]


def test_canary_refuses_to_send_all_callers_to_the_canary(release):
    release.serve()
    message = release.fail("canary", "digits", "2")
    assert "would be the highest one that is loaded" in message
    assert "tfserving traffic" in message
    assert release.available() == [[1]]
    assert release.history == []


def test_label_rejects_a_version_that_is_not_loaded(release):
    release.serve()
    message = release.fail("label", "digits", "stable=2")
    assert 'version 2 of model "digits" is not loaded (loaded: 1)' in message


def test_label_removes_a_label(release):
    release.serve()
    release.succeed("label", "digits", "stable=1", "blue=1")
    release.succeed("label", "digits", "blue=")
    assert release.history[-1].after.labels == {"stable": 1}
    assert "has no label 'blue'" in release.fail("label", "digits", "blue=")


@pytest.mark.parametrize("label", ["stable", "=1", "a b=1", "stable=x"])
def test_label_rejects_what_is_not_a_label_and_a_version(release, label):
    assert "is not LABEL=VERSION" in release.fail("label", "digits", label, status=2)


def test_add_and_remove_change_the_list_of_models(served):
    count = len(served.servers)
    (served.models / "digits").rename(served.models / "more")
    (served.models / "digits").symlink_to("more")
    served.succeed("add", "more", "1,3")
    assert served.available("more") == [[3, 1]] * count
    assert served.available() == [[1]] * count
    served.succeed("remove", "more")
    assert served.config.read_text() == CONFIG


def test_add_rejects_a_model_without_the_versions(release):
    assert "has no version in" in release.fail("add", "nothing", status=2)
    assert "has no version 9 in" in release.fail(
        "add", "digits2", "9", "--base-path", "/models/digits", status=2
    )
    assert "is in the config already" in release.fail("add", "digits")


def test_remove_rejects_the_only_model(release):
    release.serve()
    release.succeed("remove", "other")
    assert "is the only model" in release.fail("remove", "digits")


@pytest.mark.parametrize(
    "command", [("promote", "2"), ("canary", "2"), ("label", "a=1"), ("remove",), ("rollback",)]
)
def test_an_unknown_model_is_reported_with_those_that_exist(release, command):
    name, *rest = command
    assert 'has no model "digit" (its models: digits, other)' in release.fail(name, "digit", *rest)


@pytest.mark.parametrize("command", ["promote", "canary"])
def test_a_version_that_is_not_on_disk_is_reported(release, command):
    message = release.fail(command, "digits", "9", status=2)
    assert 'model "digits" has no version 9 on disk (found 1, 2, 3)' in message


@pytest.mark.parametrize("words", [("promote", "x"), ("canary", "-1"), ("rollback", "--to", "1.5")])
def test_rejects_what_is_not_a_version_number(release, capsys, words):
    name, *rest = words
    with pytest.raises(SystemExit):
        release.run(name, "digits", *rest)
    assert f"{rest[-1]!r} is not a version number, such as 2" in capsys.readouterr().err


def test_only_the_file_changes_without_a_server(release):
    outcome = release.succeed("promote", "digits", "2")
    assert "only the file changes" in outcome.err
    assert release.config.read_text() == pin(CONFIG, 2)
    assert release.history[0].servers == ()


def test_nothing_is_recorded_if_there_is_nothing_to_change(release):
    release.serve()
    assert "nothing to change" in release.succeed("promote", "digits", "1").err
    assert release.history == []


def test_prints_the_record_as_json(release):
    release.serve()
    record = release.succeed("promote", "digits", "2", "--json").json
    assert record["result"] == "done"
    assert record["after"] == {"versions": [2], "labels": {}, "promoted": 2}


def test_polling_servers_follow_the_file(release):
    release.serve(2, poll=0.05)
    release.succeed("canary", "digits", "2", "--labels-in-use")
    release.succeed("promote", "digits", "2")
    release.succeed("promote", "digits", "1")
    assert release.available() == [[1], [1]]


def test_bytes_that_are_not_utf_8_stay(release):
    data = CONFIG.replace("handwritten", "manuscrit éà").encode("latin-1").replace(b"\n", b"\r\n")
    release.config.write_bytes(data)
    release.succeed("promote", "digits", "2")
    assert release.config.read_bytes() == data.replace(b"versions: 1", b"versions: 2")
    assert encode_config(release.config.read_bytes().decode("utf-8", "surrogateescape")) == (
        release.config.read_bytes()
    )


def test_a_link_to_the_config_stays_a_link(release):
    target = release.config.rename(release.models / "team.config")
    release.config.symlink_to("team.config")
    release.succeed("promote", "digits", "2")
    assert release.config.is_symlink()
    assert target.read_text() == pin(CONFIG, 2)


def test_json_is_rejected_with_what_to_do(release):
    release.config.write_text("{}")
    assert "is JSON, which servers do not read; convert it: tfserving format" in release.fail(
        "promote", "digits", "2", status=2
    )
