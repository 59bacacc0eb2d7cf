"""Every problem that lint finds on disk, with the line that it points to and the mend that it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tfserving.repository.diagnostics import Kind
from tfserving.repository.lint import lint
from tfserving.repository.lint_disk import Disk

MakeVersion = Callable[..., Path]

GOOD = """\
model_config_list {
  config {
    name: "a"
    base_path: "/models/a"
    model_platform: "tensorflow"
  }
}
"""


def with_lines(*lines: str) -> str:
    """GOOD with more fields from line 6 on."""
    return GOOD.replace("  }\n}\n", "".join(f"    {line}\n" for line in lines) + "  }\n}\n")


def found(text: str, disk: Disk) -> list[tuple[str, int, str, str]]:
    return [(problem.kind.value, problem.line, problem.message, problem.mend) for problem in lint(text, disk)]


@pytest.fixture
def disk(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.chdir(models_dir.parent)
    return Disk(Path("models"))


def test_nothing_is_wrong(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", 1)
    make_version("a", 2)
    assert lint(GOOD, disk) == ()
    policy = "model_version_policy { specific { versions: [2, 1] } }"
    assert lint(with_lines(policy, 'version_labels { key: "x" value: 1 }'), disk) == ()


def test_a_missing_model(disk: Disk) -> None:
    assert found(GOOD, disk) == [
        (
            "error",
            4,
            "model 'a': models/a does not exist",
            "make it: python export_saved_model.py SOURCE --name a",
        )
    ]


def test_a_missing_model_of_the_example(disk: Disk) -> None:
    (problem,) = lint(GOOD, Disk(disk.models_dir, frozenset({"a"})))
    assert problem.mend == (
        "bash quickstart.sh makes the example models; "
        "one of your own is made by python export_saved_model.py SOURCE --name a"
    )


def test_a_missing_model_elsewhere(models_dir: Path) -> None:
    (problem,) = lint(GOOD, Disk(models_dir.parent / "my models"))
    assert problem.mend.endswith(f"SOURCE --name a --models-dir '{models_dir.parent}/my models'")


def test_a_base_path_that_is_called_otherwise(disk: Disk) -> None:
    (problem,) = lint(GOOD.replace("/models/a", "/models/b"), disk)
    assert problem.message == "model 'a': models/b does not exist"
    assert problem.mend.startswith("mend base_path or put a model there; python export")


def test_a_file_in_place_of_a_model(disk: Disk) -> None:
    (disk.models_dir / "a").write_text("")
    assert found(GOOD, disk)[0][:3] == ("error", 4, "model 'a': models/a is no directory")


def test_a_dangling_link_in_place_of_a_model(disk: Disk) -> None:
    (disk.models_dir / "a").symlink_to("nothing")
    assert found(GOOD, disk)[0][:3] == ("error", 4, "model 'a': models/a is no directory")


def test_no_version(disk: Disk) -> None:
    (disk.models_dir / "a").mkdir()
    assert found(GOOD, disk) == [
        (
            "error",
            4,
            "model 'a': models/a has no version in it",
            "make it: python export_saved_model.py SOURCE --name a",
        )
    ]


def test_a_base_path_with_the_version(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", 1)
    assert found(GOOD.replace("/models/a", "/models/a/1"), disk) == [
        (
            "error",
            4,
            "model 'a': models/a/1 is a SavedModel itself, where directories of versions should be",
            "end base_path before the number, or move the files into a directory named 1",
        )
    ]


def test_a_half_copied_version_that_is_served(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", 1)
    (make_version("a", 2) / "saved_model.pb").unlink()
    assert found(GOOD, disk) == [
        (
            "error",
            4,
            "model 'a': models/a/2 has no saved_model.pb",
            "copy or export it again, or remove models/a/2",
        )
    ]


def test_a_half_copied_version_that_is_not_served(disk: Disk, make_version: MakeVersion) -> None:
    (make_version("a", 1) / "variables/variables.index").unlink()
    make_version("a", 2)
    assert found(GOOD, disk) == [
        (
            "note",
            4,
            "model 'a': models/a/1 lacks variables/variables.index, but is not served",
            "copy or export it again, or remove models/a/1",
        )
    ]


@pytest.mark.parametrize(
    ("name", "number"),
    [("v1", 3), ("V7", 7), ("7.0", 7), ("2.1.0", 3), ("9223372036854775808", 3)],
)
def test_directories_that_servers_ignore(
    name: str, number: int, disk: Disk, make_version: MakeVersion
) -> None:
    make_version("a", 1)
    make_version("a", 2)
    make_version("a", name)
    assert found(GOOD, disk) == [
        (
            "note",
            4,
            f"model 'a': models/a/{name} is ignored: its name is no integer of 64 bits",
            f"rename it: mv models/a/{name} models/a/{number}",
        )
    ]


def test_a_model_under_another_name(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", 1)
    make_version("a", "best one")
    (problem,) = lint(GOOD, disk)
    assert problem.mend == "rename it: mv 'models/a/best one' models/a/2"


def test_what_else_lies_there_is_nobodys_business(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", 1)
    make_version("a", ".a.staging-12345678")
    (disk.models_dir / "a/notes").mkdir()
    (disk.models_dir / "a/README.md").write_text("")
    assert lint(GOOD, disk) == ()


def test_a_file_with_a_number(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", 1)
    (disk.models_dir / "a/2").write_text("")
    assert found(GOOD, disk) == [
        (
            "error",
            4,
            "model 'a': models/a/2 is no directory, and the real server tries to load it as version 2",
            "remove or rename it",
        )
    ]


def test_leading_zeros(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", "007")
    assert found(GOOD, disk) == [
        (
            "note",
            4,
            "model 'a': models/a/007 is served as version 7",
            "rename it: mv models/a/007 models/a/7",
        )
    ]


def test_two_names_for_one_version(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", "1")
    make_version("a", "01")
    assert found(GOOD, disk) == [
        (
            "error",
            4,
            "model 'a': models/a/01 and models/a/1 are both version 1",
            "give each its own number",
        )
    ]


def test_a_negative_version(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", "-4")
    assert found(GOOD, disk) == [
        (
            "note",
            4,
            "model 'a': version -4 cannot be asked for over REST",
            "rename it: mv models/a/-4 models/a/1",
        )
    ]


def test_specific_versions_that_are_missing(disk: Disk, make_version: MakeVersion) -> None:
    make_version("a", 1)
    text = with_lines("model_version_policy { specific {", "versions: 1", "versions: 3", "} }")
    assert found(text, disk) == [
        (
            "error",
            8,
            "model 'a': version 3 is not on disk",
            "list one that is (1), or make it: python export_saved_model.py SOURCE --name a --version 3",
        )
    ]


@pytest.mark.parametrize(
    ("policy", "version", "message", "mend"),
    [
        (
            "",
            1,
            "among the newest that the policy serves",
            "point it to 3, or serve it: model_version_policy { all {} }",
        ),
        (
            "latest { num_versions: 2 }",
            1,
            "among the newest that the policy serves",
            "point it to 2, 3, or",
        ),
        ("latest { num_versions: 2 }", 9, "on disk", "point it to 2, 3"),
        ("all {}", 9, "on disk", "point it to 1, 2, 3"),
    ],
)
def test_labels_of_versions_that_are_not_served(
    policy: str, version: int, message: str, mend: str, disk: Disk, make_version: MakeVersion
) -> None:
    for number in (1, 2, 3):
        make_version("a", number)
    text = with_lines(
        f"model_version_policy {{ {policy} }}", f'version_labels {{ key: "x" value: {version} }}'
    )
    (problem,) = lint(text, disk)
    assert (problem.kind, problem.line) == (Kind.ERROR, 7)
    assert problem.message == f"model 'a': label 'x' stands for version {version}, which is not {message}"
    assert problem.mend.startswith(mend)


def test_a_directory_that_cannot_be_read(
    disk: Disk, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version("a", 1)

    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refuse)
    assert found(GOOD, disk) == [
        (
            "error",
            4,
            "model 'a': models/a: cannot be listed (Permission denied): a directory of versions is needed",
            "let this user read it",
        )
    ]


def test_a_path_that_is_badly_written_is_not_looked_up(disk: Disk) -> None:
    assert len(lint(GOOD.replace("/models/a", "/models/../../etc"), disk)) == 1
