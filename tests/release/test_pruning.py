"""Deleting old versions that nothing uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.saved_models import write_saved_model
from tfserving.errors import ConfigError, RepositoryError
from tfserving.release.history import DONE, HistoryRecord, ModelState
from tfserving.release.pruning import (
    UsedConfig,
    delete_withdrawn,
    find_configs,
    plan_prune,
    serves_from,
    withdraw_versions,
)
from tfserving.release.servers import ServerConnections, ServerProcess
from tfserving.repository.versions import find_withdrawn

CONFIG = """model_config_list {
  config {
    name: "twin" base_path: "/models/m" model_platform: "tensorflow"
    model_version_policy { specific { versions: 2 } }
    version_labels { key: "old" value: 1 }
  }
  config { name: "other" base_path: "/models/other" model_platform: "tensorflow" }
}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model with the versions 1 to 6."""
    for version in range(1, 7):
        write_saved_model(tmp_path / "models" / "m" / str(version))
    return tmp_path / "models" / "m"


def used(base: Path, text: str) -> UsedConfig:
    path = base.parent / "used.config"
    path.write_text(text)
    return UsedConfig(path, base.parent)


def plan(base: Path, keep: int, *configs: UsedConfig, records: tuple[HistoryRecord, ...] = ()):
    with ServerConnections([]) as connections:
        return plan_prune(base, keep, configs, connections, records, timeout=1)


def promotion(version: int) -> HistoryRecord:
    state = ModelState((version,), {}, version)
    return HistoryRecord("i", "t", "u", "c", "", "promote", "twin", None, state, "", (), DONE)


def test_keeps_the_newest_versions(base: Path) -> None:
    assert [step.version for step in plan(base, 2) if not step.reason] == [1, 2, 3, 4]
    assert [step.version for step in plan(base, 9) if not step.reason] == []


def test_keeps_what_a_config_selects_or_labels_under_any_name(base: Path) -> None:
    config = used(base, CONFIG)
    reasons = {step.version: step.reason for step in plan(base, 1, config)}
    assert reasons == {
        1: f"label old of twin in {config.path}",
        2: f"selected by twin in {config.path}",
        3: "",
        4: "",
        5: "",
        6: "one of the newest 1",
    }


def test_keeps_the_version_that_rollback_returns_to(base: Path) -> None:
    records = (promotion(3), promotion(4), promotion(2))
    reasons = {step.version: step.reason for step in plan(base, 1, used(base, CONFIG), records=records)}
    assert reasons[4] == "`tfserving rollback twin` would return to it"
    assert reasons[3] == ""


def test_deletes_nothing_with_a_config_that_is_not_valid(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"used\.config"):
        plan(base, 1, used(base, "model"))


def test_finds_the_configs_of_servers_and_of_the_command(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    server = ServerProcess(
        "s", "h:1", config=tmp_path / "b", active_config=tmp_path / "c", models_dir=tmp_path / "there"
    )
    found = find_configs(tmp_path / "a", tmp_path, [server])
    assert found == [
        UsedConfig(tmp_path / "a", tmp_path),
        UsedConfig(tmp_path / "b", tmp_path / "there"),
        UsedConfig(tmp_path / "c", tmp_path / "there"),
    ]
    assert find_configs(tmp_path / "none", tmp_path, []) == []


def test_knows_which_servers_read_a_repository(base: Path) -> None:
    assert serves_from(ServerProcess("s", "h:1", models_dir=base.parent), base)
    assert not serves_from(ServerProcess("s", "h:1", models_dir=base.parents[1] / "other"), base)
    assert not serves_from(ServerProcess("s", "h:1"), base)


def test_deletes_after_a_rename_and_finishes_an_interrupted_deletion(base: Path) -> None:
    first, *_ = steps = plan(base, 4)
    withdraw_versions(steps)
    assert [path.parent for path in find_withdrawn(base)] == [base, base]
    assert not first.path.exists()
    # A command that was killed here leaves two directories that servers ignore.
    assert [path.name.split(".")[1] for path in delete_withdrawn(base)] == ["1", "2"]
    assert sorted(path.name for path in base.iterdir()) == ["3", "4", "5", "6"]
    assert delete_withdrawn(base) == []


def test_keeps_a_version_that_cannot_be_renamed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.rename", fail)
    with pytest.raises(RepositoryError, match=r"cannot rename .*/1: Permission denied; it is kept"):
        withdraw_versions(plan(base, 4))
    assert (base / "1" / "saved_model.pb").exists()
