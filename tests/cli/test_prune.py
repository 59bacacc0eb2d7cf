"""tfserving prune"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client.fakes import half
from tfserving.cli.prune import main
from tfserving.release.change_lock import hold_change_lock
from tfserving.release.history import History

pytestmark = pytest.mark.usefixtures("only_named_servers")

CONFIG = (
    'model_config_list { config { name: "half" base_path: "/models/half" model_platform: "tensorflow" } }'
)


@pytest.fixture(autouse=True)
def repository(in_repository, make_version):
    """A repository with versions 1 to 5 of a model; a fake server has loaded 1 and 2."""
    for version in range(1, 6):
        make_version("half", version)
    Path("models/models.config").write_text(CONFIG)


def versions_on_disk() -> list[str]:
    return sorted(path.name for path in Path("models/half").iterdir())


def test_deletes_versions_that_nothing_uses_and_records_it(run, rpc_server, service):
    service.models["half"][3] = half(3)
    service.models["half"][3].state = 50  # unloaded
    arguments = ("half", "--keep", "1", "--server", rpc_server.address)
    lines = [
        f"kept half 1: loaded by {rpc_server.address}",
        f"kept half 2: loaded by {rpc_server.address}",
        "deleted half 3: models/half/3",
        "deleted half 4: models/half/4",
        "kept half 5: one of the newest 1",
    ]
    dry = [line.replace("deleted", "would delete") for line in lines]
    assert run(main, *arguments, "--dry-run") == (0, "\n".join(dry) + "\n", "")
    assert versions_on_disk() == ["1", "2", "3", "4", "5"]
    assert History(Path("models")).read() == []
    assert run(main, *arguments, "--message", "disk full") == (0, "\n".join(lines) + "\n", "")
    assert versions_on_disk() == ["1", "2", "5"]
    (record,) = History(Path("models")).read()
    assert (record.operation, record.model, record.message) == ("prune", "half", "disk full")
    assert (record.before.versions, record.after.versions) == ((1, 2, 3, 4, 5), (1, 2, 5))
    document = json.loads(run(main, *arguments, "--json")[1])
    assert document["deleted"] == []
    assert document["kept"][2] == {"version": 5, "reason": "one of the newest 1"}
    assert len(History(Path("models")).read()) == 1


def test_deletes_nothing_if_a_server_does_not_respond(run):
    status, out, err = run(main, "half", "--keep=1", "--server=127.0.0.1:1", "--timeout=0.3")
    assert (status, out) == (1, "")
    assert "127.0.0.1:1 does not respond, so the versions that it serves are not known: " in err
    assert err.endswith("; nothing was deleted\n")
    assert len(versions_on_disk()) == 5


def test_deletes_nothing_while_another_command_holds_the_lock(run):
    with hold_change_lock(Path("models/.models.config.lock"), "somebody", timeout=1):
        status, out, err = run(main, "half", "--keep=1", "--timeout=0.1")
    assert (status, out) == (1, "")
    assert "is being changed by somebody" in err
    assert len(versions_on_disk()) == 5


def test_finishes_what_a_killed_prune_began(run):
    Path("models/half/1").rename("models/half/.1.withdrawn-00")
    status, _, err = run(main, "half", "--keep=9")
    assert (status, err) == (
        0,
        "tfserving prune: an earlier prune was interrupted; deleted models/half/.1.withdrawn-00\n",
    )
    assert versions_on_disk() == ["2", "3", "4", "5"]


def test_works_without_a_config(run):
    Path("models/models.config").unlink()
    assert run(main, "half", "--keep=4")[:1] == (0,)
    assert versions_on_disk() == ["2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("half", "--keep=0"), "--keep 0 is too small; keep at least 1 version"),
        (("../half", "--keep=1"), "is not a valid model name"),
        (("nobody", "--keep=1"), "cannot list models/nobody: No such file or directory"),
        (("half", "--keep=1", "--models-dir=nowhere"), "--models-dir nowhere is not a directory"),
    ],
)
def test_rejects_invalid_arguments(arguments, message, run):
    status, out, err = run(main, *arguments)
    assert (status, out) == (2, "")
    assert message in err
