import os

import pytest

from tfserving.repository.config import All, Latest, ModelConfig, Specific
from tfserving.server.core.file_system_source import FileSystemSource

NOW = 1_000_000.0


@pytest.fixture
def models_dir(tmp_path):
    (tmp_path / "m").mkdir()
    return tmp_path


@pytest.fixture
def source(models_dir):
    return FileSystemSource(models_dir, clock=lambda: NOW)


def put(models_dir, version, *, age=60.0, name="saved_model.pb"):
    folder = models_dir / "m" / str(version)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"graph")
    touch(folder, age)
    return folder


def touch(folder, age):
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (NOW - age, NOW - age))


def model(policy=None):
    return ModelConfig("m", "/models/m", policy or Latest())


def found(source, policy=None):
    return sorted(source.poll(model(policy)))


def test_the_policy_selects_versions(models_dir, source):
    for version in (1, 2, 10):
        put(models_dir, version)
    put(models_dir, "v3")
    (models_dir / "m" / "4").write_text("not a directory")
    assert found(source) == [10]
    assert found(source, Latest(2)) == [2, 10]
    assert found(source, All()) == [1, 2, 10]
    assert found(source, Specific((1, 7))) == [1]
    assert source.poll(model())[10] == models_dir / "m" / "10"


def test_ignores_a_version_without_a_graph(models_dir, source):
    folder = put(models_dir, 1, name="variables.index")
    assert found(source) == []
    assert found(source) == []
    (folder / "saved_model.pb").write_bytes(b"graph")
    touch(folder, 60)
    # the directory differs from the last poll: two polls must find it unchanged
    assert found(source) == []
    assert found(source) == [1]


def test_ignores_a_version_until_two_polls_find_it_unchanged(models_dir, source):
    folder = put(models_dir, 1, age=0.5)
    assert found(source) == []
    (folder / "assets").mkdir()
    (folder / "assets" / "big").write_bytes(b"12")
    assert found(source) == []
    (folder / "assets" / "big").write_bytes(b"1234")
    assert found(source) == []
    assert found(source) == [1]


def test_finds_an_old_version_at_the_first_poll(models_dir, source):
    put(models_dir, 1, age=2.0)
    assert found(source) == [1]


def test_the_old_version_stays_selected_while_a_new_one_is_written(models_dir, source):
    put(models_dir, 1)
    assert found(source) == [1]
    put(models_dir, 2, age=0)
    assert found(source) == [1]
    assert found(source) == [2]


def test_served_versions_stay_if_the_base_path_disappears(models_dir, source, caplog):
    put(models_dir, 1)
    assert found(source) == [1]
    (models_dir / "m").rename(models_dir / "elsewhere")
    assert source.poll(model()) is None
    assert source.poll(model()) is None
    assert len(caplog.records) == 1


def test_an_empty_base_path_selects_no_version(models_dir, source, caplog):
    folder = put(models_dir, 1)
    assert found(source) == [1]
    folder.rename(models_dir / "elsewhere")
    assert found(source) == []
    assert "no version in" in caplog.text


def test_a_version_that_was_removed_and_added_again_is_checked_again(models_dir, source):
    folder = put(models_dir, 1)
    assert found(source) == [1]
    folder.rename(models_dir / "elsewhere")
    assert found(source) == []
    put(models_dir, 1, age=0)
    assert found(source) == []


def test_without_polling_a_new_version_is_selected_immediately(models_dir):
    source = FileSystemSource(models_dir, clock=lambda: NOW, settle=False)
    put(models_dir, 1, age=0)
    put(models_dir, 2, age=0, name="variables.index")
    assert found(source) == [1]


def test_an_incomplete_version_that_was_removed_counts_as_new_when_it_is_added_again(models_dir, source):
    folder = put(models_dir, 1, age=0)
    assert found(source) == []
    folder.rename(models_dir / "elsewhere")
    assert found(source) == []
    (models_dir / "elsewhere").rename(folder)
    assert found(source) == []
    assert found(source) == [1]


def test_a_failed_version_is_selected_again_once_its_files_have_changed_and_settled(models_dir, source):
    folder = put(models_dir, 1)
    put(models_dir, 2)
    assert found(source, All()) == [1, 2]
    assert sorted(source.poll(model(All()), {folder})) == [1, 2]
    (folder / "variables.index").write_bytes(b"late")
    # later changes of a settled version are ignored
    assert found(source, All()) == [1, 2]
    assert sorted(source.poll(model(All()), {folder})) == [2]
    (folder / "variables.data").write_bytes(b"later")
    assert found(source, All()) == [2]
    assert found(source, All()) == [1, 2]
