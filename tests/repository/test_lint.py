"""Every problem that lint knows, with the line that it points to and the mend that it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserving.repository.diagnostics import Kind, Problem, either, errors_of
from tfserving.repository.lint import lint

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


def found(text: str) -> list[tuple[str, int, str, str]]:
    return [(problem.kind.value, problem.line, problem.message, problem.mend) for problem in lint(text)]


class TestText:
    """What the file alone tells."""

    def test_nothing_is_wrong(self) -> None:
        assert lint(GOOD) == ()

    @pytest.mark.parametrize(
        ("text", "line", "message", "mend"),
        [
            (
                "model_config_list {\n",
                1,
                'Expected "}"',
                "protobuf text format, for example model_config_list {",
            ),
            (
                GOOD.replace("name:", "name"),
                3,
                'column 10: Expected ":"',
                "mend it; the file is protobuf text",
            ),
            (GOOD.replace('"a"', "'a"), 3, "String missing ending quote", "mend it"),
            (
                with_lines('version_labels { key: "x" value: "one" }'),
                6,
                'column 38: Couldn\'t parse integer: "one"',
                "mend it",
            ),
            (
                with_lines("model_version_policy {", "  all {}", "  latest {}", "}"),
                8,
                '"latest" is specified along with field "all"',
                "mend it",
            ),
            (with_lines('name: "b"'), 6, 'should not have multiple "name" fields', "mend it"),
            (with_lines('nmae: "b"'), 6, "there is no field 'nmae' in ModelConfig", "write name"),
            (with_lines('path: "b"'), 6, "there is no field 'path'", "write base_path"),
            (
                with_lines('zzz: "b"'),
                6,
                "there is no field 'zzz'",
                "remove it; ModelConfig has name, base_path, ",
            ),
            (with_lines('modelPlatform: "b"'), 6, "no field 'modelPlatform'", "write model_platform"),
            (
                with_lines("model_version_policy { newest {} }"),
                6,
                "no field 'newest'",
                "remove it; ServableVersion",
            ),
            (
                with_lines("config {}"),
                6,
                "no field 'config' in ModelConfig",
                "close the message before it with }",
            ),
            (
                "models {}",
                1,
                "there is no field 'models' in ModelServerConfig",
                "remove it; ModelServerConfig has",
            ),
            ("", 1, "no model is listed", "write one config for each model: model_config_list {"),
            ("# empty\nmodel_config_list {}", 2, "no model is listed", "write one config for each model"),
            (
                "# x\ncustom_model_config {}",
                2,
                "custom_model_config needs a server",
                "list the models instead",
            ),
            (
                GOOD.replace('    name: "a"\n', ""),
                2,
                "a model without a name: no request could",
                'add name: "NAME"',
            ),
            (
                GOOD.replace('"a"', '"a b"'),
                3,
                "model 'a b': the name would break a path or a URL",
                "use letters, ",
            ),
            (GOOD.replace('"a"', '"../a"'), 3, "model '../a': the name would break", "use letters, "),
            (GOOD.replace('"a"', '"a;b"'), 3, "model 'a;b': the name would break", "use letters, "),
            (GOOD.replace('"a"', "'a\\tb'"), 3, "model 'a\\tb': the name would break", "use letters, "),
            (
                with_lines("}", "config {", 'name: "a" base_path: "/models/b" model_platform: "tensorflow"'),
                8,
                "model 'a': the name is in use on line 3",
                "give each model its own; several versions of one model are for its model_version_policy",
            ),
            (
                GOOD.replace('    base_path: "/models/a"\n', ""),
                2,
                "base_path is missing",
                'write base_path: "/models/a"',
            ),
            (
                GOOD.replace("/models/a", "models/a"),
                4,
                "'models/a' is relative",
                'write base_path: "/models/a"',
            ),
            (
                GOOD.replace("/models/a", "/srv/a"),
                4,
                "'/srv/a' is not under /models",
                'write base_path: "/models/a"',
            ),
            (
                GOOD.replace("/models/a", "/modelsx/a"),
                4,
                "is not under /models",
                'write base_path: "/models/a"',
            ),
            (GOOD.replace("/models/a", "/models"), 4, "holds models, not the versions of one", "/models/a"),
            (GOOD.replace("/models/a", "/models/../a"), 4, "would break a path or a command", "/models/a"),
            (GOOD.replace("/models/a", "/models/a b"), 4, "would break a path or a command", "/models/a"),
            (
                GOOD.replace("/models/a", "gs://models/a"),
                4,
                "is a URI; models are served from /models",
                "/models/a",
            ),
            (
                GOOD.replace('    model_platform: "tensorflow"\n', ""),
                2,
                "model_platform is missing",
                'write model_platform: "tensorflow"',
            ),
            (
                GOOD.replace("tensorflow", "torch"),
                5,
                "model_platform 'torch' is unknown",
                'write model_platform: "tens',
            ),
            (with_lines("model_type: TENSORFLOW"), 6, "exclude each other", "remove model_type"),
            (
                GOOD.replace('model_platform: "tensorflow"', "model_type: OTHER"),
                5,
                "is not served",
                "instead",
            ),
            (
                with_lines("model_version_policy {", "  specific {}", "}"),
                7,
                "the specific policy lists no version, so none is served",
                "add versions: N, or remove model_version_policy",
            ),
            (
                with_lines("version_labels { value: 1 }"),
                6,
                "a label is empty",
                'name it, for example key: "stable"',
            ),
            (
                with_lines('version_labels { key: "x" value: 1 }', "version_labels {", 'key: "x" value: 1 }'),
                7,
                "label 'x' is given on line 6 already",
                "keep one of the two",
            ),
            (
                with_lines(
                    "model_version_policy { specific { versions: 1 versions: 3 } }",
                    'version_labels { key: "x" value: 2 }',
                ),
                7,
                "label 'x' stands for version 2, which the specific policy does not list",
                "add versions: 2 to it, or point the label to 1, 3",
            ),
        ],
    )
    def test_errors(self, text: str, line: int, message: str, mend: str) -> None:
        errors = [problem for problem in errors_of(lint(text)) if message in problem.message]
        assert errors, lint(text)
        assert errors[0].line == line
        assert mend in errors[0].mend

    @pytest.mark.parametrize(
        ("text", "line", "message", "mend"),
        [
            (
                with_lines("model_version_policy { latest {", "num_versions: 0 } }"),
                7,
                "model 'a': num_versions: 0 serves one version",
                "write how many are wanted",
            ),
            (
                with_lines("version_labels {", 'key: "a b" value: 1 }'),
                6,
                "model 'a': label 'a b' cannot be asked for over REST",
                "use letters, digits",
            ),
            (
                GOOD.replace('model_platform: "tensorflow"', "model_type: TENSORFLOW"),
                5,
                "model 'a': model_type is deprecated",
                'write model_platform: "tensorflow" instead',
            ),
        ],
    )
    def test_notes(self, text: str, line: int, message: str, mend: str) -> None:
        (problem,) = lint(text)
        assert (problem.kind, problem.line, problem.message) == (Kind.NOTE, line, message)
        assert mend in problem.mend

    def test_latest_without_a_number_is_right(self) -> None:
        assert lint(with_lines("model_version_policy { latest {} }")) == ()

    def test_two_names_may_share_a_base_path(self) -> None:
        assert (
            lint(
                with_lines("}", "config {", 'name: "b" base_path: "/models/a/" model_platform: "tensorflow"')
            )
            == ()
        )

    def test_all_of_it_at_once_in_the_order_of_lines(self) -> None:
        text = (
            GOOD.replace('"a"', '"a b"')
            .replace("/models/a", "a")
            .replace("tensorflow", "torch")
            .replace("  }\n}\n", "    foo: 1\n  }\n  config {}\n}\n")
        )
        assert [problem.line for problem in lint(text)] == [3, 4, 5, 6, 8, 8, 8]

    def test_a_repeated_label_is_held_against_the_policy_once(self) -> None:
        text = with_lines(
            "model_version_policy { specific { versions: 1 } }",
            'version_labels { key: "x" value: 1 }',
            'version_labels { key: "x" value: 7 }',
        )
        assert [(problem.line, problem.message[:22]) for problem in lint(text)] == [
            (8, "model 'a': label 'x' i"),
            (8, "model 'a': label 'x' s"),
        ]

    def test_a_problem_as_it_is_shown(self) -> None:
        (problem,) = lint(GOOD.replace("/models/a", "a"))
        assert problem.render("models/models.config") == (
            "models/models.config:4: error: model 'a': base_path 'a' is relative, which servers refuse: "
            'write base_path: "/models/a"'
        )

    @given(st.text(alphabet="{}[]<>:,;\"'\\#\n configmodel_stbparvz10", max_size=120))
    def test_any_text(self, text: str) -> None:
        assert all(problem.line >= 1 for problem in lint(text))

    @given(st.text())
    def test_any_unicode(self, text: str) -> None:
        assert all(isinstance(problem, Problem) for problem in lint(text))


class TestJson:
    GOOD = '[\n {"name": "a", "basePath": "/models/a",\n  "model_platform": "tensorflow"}\n]'

    def lint(self, text: str) -> list[tuple[str, int, str, str]]:
        """What lint finds, without the note that every JSON gets."""
        note, *others = found(text)
        assert note[:3] == ("note", 1, "this is JSON, which servers do not read")
        assert note[3].endswith("python -m tfserving.repository format --config FILE")
        return others

    def test_nothing_else_is_wrong(self) -> None:
        assert self.lint(self.GOOD) == []

    @pytest.mark.parametrize(
        "head", ['{"model_config_list": {"config": %s}}', '{"modelConfigList": %s}', '{"config": %s}', "%s"]
    )
    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            (
                "/models/a",
                "a",
                (2, "model 'a': base_path 'a' is relative, which servers refuse", "write base_path: "),
            ),
            (
                '"model_platform"',
                '"modelPlattform"',
                (3, "there is no field 'modelPlattform' in ModelConfig", "write model_platform"),
            ),
            (
                "\n]",
                ',\n {"name": "a", "base_path": "/models/b", "model_platform": "tensorflow"}]',
                (4, "model 'a': the name is in use on line 2", "give each model its own"),
            ),
            (
                '"}\n]',
                '",\n"model_version_policy": {"specific": {"versions": [1]}},\n"versionLabels": {"x": 2}}]',
                (
                    5,
                    "model 'a': label 'x' stands for version 2, which the specific policy does not list",
                    "add versions: 2 to it, or point the label to 1",
                ),
            ),
        ],
    )
    def test_problems_of_models(self, head: str, old: str, new: str, problem: tuple[int, str, str]) -> None:
        line, message, mend = problem
        problems = self.lint(head % self.GOOD.replace(old, new))
        assert ("error", line, message) in [found[:3] for found in problems]
        assert any(found[3].startswith(mend) for found in problems)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (
                "[\n{,}]",
                (2, "column 2: Expecting property name enclosed in double quotes", "mend the JSON there"),
            ),
            ("{}", (1, "no model is listed", None)),
            ("[]", (1, "no model is listed", None)),
            ('{"models": []}', (1, "there is no field 'models' in ModelServerConfig", None)),
            (
                '[{"name": "a",\n"name": "b"}]',
                (2, "column 1: 'name' stands twice in one object", "mend the JSON there"),
            ),
        ],
    )
    def test_problems_of_the_file(self, text: str, problem: tuple[int, str, str | None]) -> None:
        line, message, mend = problem
        problems = self.lint(text)
        assert (line, message) in [(at, what) for _, at, what, _ in problems]
        assert mend is None or mend in problems[0][3]


def test_of_many_numbers_the_newest_are_named() -> None:
    assert either([3, 1, 2]) == "1, 2, 3"
    assert either(range(1, 100)) == "…, 92, 93, 94, 95, 96, 97, 98, 99"
