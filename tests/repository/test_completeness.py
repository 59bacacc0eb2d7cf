"""Which directories are complete SavedModels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format

from tests.saved_models import saved_model, variables_index, write_saved_model
from tfserving.errors import RepositoryError
from tfserving.repository.completeness import check_version_dir, find_version_error

INDEX = "variables/variables.index"
SHARD = "variables/variables.data-00000-of-00001"


@pytest.fixture
def version(tmp_path: Path) -> Path:
    write_saved_model(tmp_path / "1")
    return tmp_path / "1"


def as_text(path: Path) -> Path:
    """Replace saved_model.pb by its text form, with fields that this package does not know."""
    model = saved_model("VarHandleOp", "RestoreV2")
    text = text_format.MessageToString(model)
    text = text.replace(
        "meta_graphs {",
        'meta_graphs { saver_def { filename_tensor_name: "a\\"{" version: V2 } '
        'collection_def { key: "x" value { bytes_list { value: "\\n\\377" } } } ',
        1,
    )
    (path / "saved_model.pb").unlink()
    file = path / "saved_model.pbtxt"
    file.write_text(text)
    return file


def test_accepts_a_complete_version(version: Path) -> None:
    check_version_dir(version)


def test_accepts_text_format(version: Path) -> None:
    as_text(version)
    check_version_dir(version)


def test_reads_the_variables_of_a_model_in_text_format(version: Path) -> None:
    as_text(version)
    (version / INDEX).unlink()
    (version / SHARD).unlink()
    assert find_version_error(version) == "has no variables/variables.index"


@pytest.mark.parametrize("with_directory", [False, True])
def test_accepts_a_model_without_variables(with_directory: bool, tmp_path: Path) -> None:
    write_saved_model(tmp_path, variables=False)
    if with_directory:
        (tmp_path / "variables").mkdir()
    check_version_dir(tmp_path)


def test_accepts_variables_that_are_not_restored(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(saved_model("VarHandleOp").SerializeToString())
    check_version_dir(tmp_path)


def test_accepts_a_shard_that_is_longer_than_needed(version: Path) -> None:
    (version / SHARD).write_bytes(bytes(9))
    check_version_dir(version)


def test_checks_every_shard_of_the_index(version: Path) -> None:
    (version / INDEX).write_bytes(variables_index({"a": (0, 0, 8), "b": (1, 4, 4), "c": (1, 0, 4)}, shards=2))
    assert find_version_error(version) == "has no variables/variables.data-00000-of-00002"
    (version / SHARD).rename(version / "variables/variables.data-00000-of-00002")
    assert find_version_error(version) == "has no variables/variables.data-00001-of-00002"
    (version / "variables/variables.data-00001-of-00002").write_bytes(bytes(7))
    assert find_version_error(version) == (
        "has a truncated variables/variables.data-00001-of-00002 (7 of 8 bytes)"
    )
    (version / "variables/variables.data-00001-of-00002").write_bytes(bytes(8))
    check_version_dir(version)


@pytest.mark.parametrize("missing", ["saved_model.pb", INDEX, SHARD])
def test_rejects_a_missing_file(missing: str, version: Path) -> None:
    (version / missing).unlink()
    with pytest.raises(RepositoryError, match=f"/1 has no {missing}; copy or export the model again"):
        check_version_dir(version)


def test_rejects_a_version_whose_variables_are_missing(version: Path) -> None:
    (version / SHARD).unlink()
    (version / INDEX).unlink()
    assert find_version_error(version) == "has no variables/variables.index"
    (version / "variables").rmdir()
    assert find_version_error(version) == "has no variables/variables.index"


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt"])
def test_rejects_an_empty_graph_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert find_version_error(tmp_path) == f"has an empty {name}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("saved_model.pb", b"garbage"),
        ("saved_model.pb", b"\x08\x01"),  # parses, but has no graph
        ("saved_model.pb", saved_model("Placeholder").SerializeToString()[:-1]),
        ("saved_model.pbtxt", b"meta_graphs {"),
        ("saved_model.pbtxt", b"\xff\xfe"),
        ("saved_model.pbtxt", b"saved_model_schema_version: 1"),
    ],
)
def test_rejects_a_file_that_is_not_a_saved_model(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert find_version_error(tmp_path) == f"has a {name} that is not a valid SavedModel"


def test_rejects_a_model_without_a_graph_for_serving(tmp_path: Path) -> None:
    model = saved_model("Placeholder", tags=("train", "gpu"))
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    assert find_version_error(tmp_path) == "has no graph with the tag serve (found: train,gpu)"


def test_accepts_more_tags_than_serve(tmp_path: Path) -> None:
    model = saved_model("Placeholder", tags=("gpu", "serve"))
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    check_version_dir(tmp_path)


@pytest.mark.parametrize("size", [0, 7])
def test_rejects_a_truncated_shard(size: int, version: Path) -> None:
    (version / SHARD).write_bytes(bytes(size))
    assert find_version_error(version) == f"has a truncated {SHARD} ({size} of 8 bytes)"


def test_rejects_a_truncated_index(version: Path) -> None:
    content = (version / INDEX).read_bytes()
    for size in range(len(content)):
        (version / INDEX).write_bytes(content[:size])
        assert find_version_error(version) == f"has a truncated or damaged {INDEX}"


def test_rejects_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="/7 does not exist"):
        check_version_dir(tmp_path / "7")


def test_reports_a_file_that_is_not_readable(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Callable[[Path], bytes] = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "saved_model.pb":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert find_version_error(version) == "is not readable (Permission denied)"
