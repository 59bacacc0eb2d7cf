"""Every diagnostic of the versions on disk, with its line and its hint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tfserving.repository.diagnostics import Severity
from tfserving.repository.lint import lint

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
    """GOOD with these lines from line 6 on."""
    return GOOD.replace("  }\n}\n", "".join(f"    {line}\n" for line in lines) + "  }\n}\n")


def found(text: str) -> list[tuple[str, int, str, str]]:
    return [(one.severity.value, one.line, one.message, one.hint) for one in lint(text, MODELS)]


MODELS = Path("models")

EXPORT = "export it: tfserving export SOURCE --name a"


@pytest.fixture(autouse=True)
def _in_repository(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models_dir.parent)


def test_accepts_complete_versions(make_version: MakeVersion) -> None:
    make_version("a", 1)
    make_version("a", 2)
    assert lint(GOOD, MODELS) == ()
    policy = "model_version_policy { specific { versions: [2, 1] } }"
    assert lint(with_lines(policy, 'version_labels { key: "x" value: 1 }'), MODELS) == ()


def test_reports_a_missing_model() -> None:
    assert found(GOOD) == [
        (
            "error",
            4,
            'model "a" has base_path models/a, which does not exist',
            EXPORT,
        )
    ]


def test_the_hint_names_another_models_dir(models_dir: Path) -> None:
    (error,) = lint(GOOD, models_dir.parent / "my models")
    assert error.hint.endswith(f"SOURCE --name a --models-dir '{models_dir.parent}/my models'")


def test_reports_a_missing_base_path_with_another_name() -> None:
    (error,) = lint(GOOD.replace("/models/a", "/models/b"), MODELS)
    assert error.message == 'model "a" has base_path models/b, which does not exist'
    assert error.hint.startswith("fix base_path, or export the model to /models/a: tfserving export")


def test_reports_a_file_instead_of_a_model() -> None:
    (MODELS / "a").write_text("")
    assert found(GOOD)[0][:3] == ("error", 4, 'model "a" has base_path models/a, which is not a directory')


def test_reports_a_dangling_link_instead_of_a_model() -> None:
    (MODELS / "a").symlink_to("nothing")
    assert found(GOOD)[0][:3] == ("error", 4, 'model "a" has base_path models/a, which is not a directory')


def test_reports_a_model_without_versions() -> None:
    (MODELS / "a").mkdir()
    assert found(GOOD) == [
        (
            "error",
            4,
            'model "a" has no version in models/a',
            EXPORT,
        )
    ]


def test_reports_a_base_path_with_a_version(make_version: MakeVersion) -> None:
    make_version("a", 1)
    assert found(GOOD.replace("/models/a", "/models/a/1")) == [
        (
            "error",
            4,
            'model "a" has base_path models/a/1, which is a SavedModel, not a directory of versions',
            "remove the version from base_path, or move the files into a directory named 1",
        )
    ]


def test_reports_an_incomplete_version_that_is_served(make_version: MakeVersion) -> None:
    make_version("a", 1)
    (make_version("a", 2) / "saved_model.pb").unlink()
    assert found(GOOD) == [
        (
            "error",
            4,
            'model "a" has an incomplete version: models/a/2 has no saved_model.pb',
            "copy or export it again, or remove models/a/2",
        )
    ]


def test_notes_an_incomplete_version_that_is_not_served(make_version: MakeVersion) -> None:
    (make_version("a", 1) / "variables/variables.index").unlink()
    make_version("a", 2)
    assert found(GOOD) == [
        (
            "note",
            4,
            'model "a" has an incomplete version, which is not served: '
            "models/a/1 has no variables/variables.index",
            "copy or export it again, or remove models/a/1",
        )
    ]


@pytest.mark.parametrize(
    ("name", "number"),
    [("v1", 3), ("V7", 7), ("7.0", 7), ("2.1.0", 3), ("9223372036854775808", 3)],
)
def test_notes_directories_that_servers_ignore(name: str, number: int, make_version: MakeVersion) -> None:
    make_version("a", 1)
    make_version("a", 2)
    make_version("a", name)
    assert found(GOOD) == [
        (
            "note",
            4,
            f'model "a" has models/a/{name}, which servers ignore: the name is not a 64-bit integer',
            f"rename it: mv models/a/{name} models/a/{number}",
        )
    ]


def test_notes_a_saved_model_without_a_number(make_version: MakeVersion) -> None:
    make_version("a", 1)
    make_version("a", "best one")
    (note,) = lint(GOOD, MODELS)
    assert note.hint == "rename it: mv 'models/a/best one' models/a/2"


def test_ignores_other_files(make_version: MakeVersion) -> None:
    make_version("a", 1)
    make_version("a", ".a.staging-12345678")
    (MODELS / "a/notes").mkdir()
    (MODELS / "a/README.md").write_text("")
    assert lint(GOOD, MODELS) == ()


def test_reports_a_file_with_a_number(make_version: MakeVersion) -> None:
    make_version("a", 1)
    (MODELS / "a/2").write_text("")
    assert found(GOOD) == [
        (
            "error",
            4,
            'model "a" has models/a/2, which is not a directory; '
            "tensorflow_model_server loads it as a version",
            "remove or rename it",
        )
    ]


def test_notes_leading_zeros(make_version: MakeVersion) -> None:
    make_version("a", "007")
    assert found(GOOD) == [
        (
            "note",
            4,
            'model "a" has models/a/007, served as version 7',
            "rename it: mv models/a/007 models/a/7",
        )
    ]


def test_reports_two_names_for_one_version(make_version: MakeVersion) -> None:
    make_version("a", "1")
    make_version("a", "01")
    assert found(GOOD) == [
        (
            "error",
            4,
            'model "a" has models/a/01 and models/a/1, both version 1',
            "give each its own number",
        )
    ]


def test_notes_a_negative_version(make_version: MakeVersion) -> None:
    make_version("a", "-4")
    assert found(GOOD) == [
        (
            "note",
            4,
            'model "a" has version -4, which REST requests cannot name',
            "rename it: mv models/a/-4 models/a/1",
        )
    ]


def test_reports_a_missing_version_of_a_specific_policy(make_version: MakeVersion) -> None:
    make_version("a", 1)
    text = with_lines("model_version_policy { specific {", "versions: 1", "versions: 3", "} }")
    assert found(text) == [
        (
            "error",
            8,
            'model "a" has no version 3 on disk (found 1)',
            "remove it from the policy or export it: tfserving export SOURCE --name a --version 3",
        )
    ]


@pytest.mark.parametrize(
    ("policy", "version", "message", "hint"),
    [
        (
            "",
            1,
            "among the newest that the policy serves",
            "assign it to another version (3), or serve it: model_version_policy { all {} }",
        ),
        (
            "latest { num_versions: 2 }",
            1,
            "among the newest that the policy serves",
            "assign it to another version (2, 3), or",
        ),
        ("latest { num_versions: 2 }", 9, "on disk", "assign it to another version (2, 3)"),
        ("all {}", 9, "on disk", "assign it to another version (1, 2, 3)"),
    ],
)
def test_reports_labels_of_versions_that_are_not_served(
    policy: str, version: int, message: str, hint: str, make_version: MakeVersion
) -> None:
    for number in (1, 2, 3):
        make_version("a", number)
    text = with_lines(
        f"model_version_policy {{ {policy} }}", f'version_labels {{ key: "x" value: {version} }}'
    )
    (error,) = lint(text, MODELS)
    assert (error.severity, error.line) == (Severity.ERROR, 7)
    assert error.message == f'model "a" has label "x" for version {version}, which is not {message}'
    assert error.hint.startswith(hint)


def test_reports_a_directory_that_is_not_readable(
    make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version("a", 1)

    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refuse)
    assert found(GOOD) == [
        (
            "error",
            4,
            'model "a" has an unreadable base_path: cannot list models/a: Permission denied; '
            "expected a directory of versions",
            "give this user read access",
        )
    ]


def test_does_not_resolve_an_invalid_base_path() -> None:
    assert len(lint(GOOD.replace("/models/a", "/models/../../etc"), MODELS)) == 1
