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


def test_policies(models_dir, source):
    for version in (1, 2, 10):
        put(models_dir, version)
    put(models_dir, "v3")
    (models_dir / "m" / "4").write_text("a file is no version")
    assert found(source) == [10]
    assert found(source, Latest(2)) == [2, 10]
    assert found(source, All()) == [1, 2, 10]
    assert found(source, Specific((1, 7))) == [1]
    assert source.poll(model())[10] == models_dir / "m" / "10"


def test_a_version_without_its_graph_waits(models_dir, source):
    folder = put(models_dir, 1, name="variables.index")
    assert found(source) == []
    assert found(source) == []
    (folder / "saved_model.pb").write_bytes(b"graph")
    touch(folder, 60)
    # the directory was seen otherwise before: it has to hold still from one poll to the next
    assert found(source) == []
    assert found(source) == [1]


def test_a_version_being_written_waits_until_it_holds_still(models_dir, source):
    folder = put(models_dir, 1, age=0.5)
    assert found(source) == []
    (folder / "assets").mkdir()
    (folder / "assets" / "big").write_bytes(b"12")
    assert found(source) == []
    (folder / "assets" / "big").write_bytes(b"1234")
    assert found(source) == []
    assert found(source) == [1]


def test_an_old_version_is_served_at_the_first_poll(models_dir, source):
    put(models_dir, 1, age=2.0)
    assert found(source) == [1]


def test_the_old_one_stays_wanted_while_the_new_one_is_written(models_dir, source):
    put(models_dir, 1)
    assert found(source) == [1]
    put(models_dir, 2, age=0)
    assert found(source) == [1]
    assert found(source) == [2]


def test_what_is_served_stays_when_the_base_path_vanishes(models_dir, source, caplog):
    put(models_dir, 1)
    assert found(source) == [1]
    (models_dir / "m").rename(models_dir / "elsewhere")
    assert source.poll(model()) is None
    assert source.poll(model()) is None
    assert len(caplog.records) == 1


def test_an_emptied_base_path_takes_the_last_version_out(models_dir, source, caplog):
    folder = put(models_dir, 1)
    assert found(source) == [1]
    folder.rename(models_dir / "elsewhere")
    assert found(source) == []
    assert "no version under" in caplog.text


def test_a_version_that_comes_back_is_looked_at_again(models_dir, source):
    folder = put(models_dir, 1)
    assert found(source) == [1]
    folder.rename(models_dir / "elsewhere")
    assert found(source) == []
    put(models_dir, 1, age=0)
    assert found(source) == []


def test_without_a_second_look_a_young_version_is_taken_as_it_is(models_dir):
    source = FileSystemSource(models_dir, clock=lambda: NOW, settle=False)
    put(models_dir, 1, age=0)
    put(models_dir, 2, age=0, name="variables.index")
    assert found(source) == [1]


def test_a_version_that_went_away_half_written_is_seen_as_new_when_it_comes_back(models_dir, source):
    folder = put(models_dir, 1, age=0)
    assert found(source) == []
    folder.rename(models_dir / "elsewhere")
    assert found(source) == []
    (models_dir / "elsewhere").rename(folder)
    assert found(source) == []
    assert found(source) == [1]


def test_a_version_that_failed_is_taken_again_once_its_files_have_changed_and_settled(models_dir, source):
    folder = put(models_dir, 1)
    put(models_dir, 2)
    assert found(source, All()) == [1, 2]
    assert sorted(source.poll(model(All()), {folder})) == [1, 2]
    (folder / "variables.index").write_bytes(b"late")
    # changes of what is in service are none of the source's business
    assert found(source, All()) == [1, 2]
    assert sorted(source.poll(model(All()), {folder})) == [2]
    (folder / "variables.data").write_bytes(b"later")
    assert found(source, All()) == [2]
    assert found(source, All()) == [1, 2]
