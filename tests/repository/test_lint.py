"""Every diagnostic of the text of a models.config, with its line and its hint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserving.repository.diagnostics import Diagnostic, Severity, list_numbers
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
    """GOOD with these lines from line 6 on."""
    return GOOD.replace("  }\n}\n", "".join(f"    {line}\n" for line in lines) + "  }\n}\n")


def found(text: str) -> list[tuple[str, int, str, str]]:
    return [(one.severity.value, one.line, one.message, one.hint) for one in lint(text)]


class TestText:
    def test_accepts_a_valid_config(self) -> None:
        assert lint(GOOD) == ()

    @pytest.mark.parametrize(
        ("text", "line", "message", "hint"),
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
                "fix it; the file is protobuf text",
            ),
            (GOOD.replace('"a"', "'a"), 3, "String missing ending quote", "fix it"),
            (
                with_lines('version_labels { key: "x" value: "one" }'),
                6,
                'column 38: Couldn\'t parse integer: "one"',
                "fix it",
            ),
            (
                with_lines("model_version_policy {", "  all {}", "  latest {}", "}"),
                8,
                '"latest" is specified along with field "all"',
                "fix it",
            ),
            (with_lines('name: "b"'), 6, 'should not have multiple "name" fields', "fix it"),
            (with_lines('nmae: "b"'), 6, 'ModelConfig has no field "nmae"', "write name"),
            (with_lines('path: "b"'), 6, 'has no field "path"', "write base_path"),
            (
                with_lines('zzz: "b"'),
                6,
                'has no field "zzz"',
                "remove it; the fields of ModelConfig are name, base_path, ",
            ),
            (with_lines('modelPlatform: "b"'), 6, 'has no field "modelPlatform"', "write model_platform"),
            (
                with_lines("model_version_policy { newest {} }"),
                6,
                'has no field "newest"',
                "remove it; the fields of ServableVersion",
            ),
            (
                with_lines("config {}"),
                6,
                'ModelConfig has no field "config"',
                "close the message before it with }",
            ),
            (
                "models {}",
                1,
                'ModelServerConfig has no field "models"',
                "remove it; the fields of ModelServerConfig are",
            ),
            ("", 1, "no model is listed", "write one config for each model: model_config_list {"),
            ("# empty\nmodel_config_list {}", 2, "no model is listed", "write one config for each model"),
            (
                "# x\ncustom_model_config {}",
                2,
                "custom_model_config is not supported",
                "list the models instead",
            ),
            (
                GOOD.replace('    name: "a"\n', ""),
                2,
                "a model without a name cannot receive requests",
                'add name: "NAME"',
            ),
            (
                GOOD.replace('"a"', '"a b"'),
                3,
                'model "a b" has an invalid name',
                "use letters, ",
            ),
            (GOOD.replace('"a"', '"../a"'), 3, 'model "../a" has an invalid name', "use letters, "),
            (GOOD.replace('"a"', '"a;b"'), 3, 'model "a;b" has an invalid name', "use letters, "),
            (GOOD.replace('"a"', "'a\\tb'"), 3, r'model "a\tb" has an invalid name', "use letters, "),
            (
                with_lines("}", "config {", 'name: "a" base_path: "/models/b" model_platform: "tensorflow"'),
                8,
                'model "a" is already listed on line 3',
                "use another name; to serve several versions of one model, use model_version_policy",
            ),
            (
                GOOD.replace('    base_path: "/models/a"\n', ""),
                2,
                "has no base_path",
                'write base_path: "/models/a"',
            ),
            (
                GOOD.replace("/models/a", "models/a"),
                4,
                'has base_path "models/a", which is not an absolute path',
                'write base_path: "/models/a"',
            ),
            (
                GOOD.replace("/models/a", "/srv/a"),
                4,
                'has base_path "/srv/a", which is not under /models',
                'write base_path: "/models/a"',
            ),
            (
                GOOD.replace("/models/a", "/modelsx/a"),
                4,
                "is not under /models",
                'write base_path: "/models/a"',
            ),
            (
                GOOD.replace("/models/a", "/models"),
                4,
                "contains all models, not the versions of one",
                "/models/a",
            ),
            (GOOD.replace("/models/a", "/models/../a"), 4, "contains an invalid name", "/models/a"),
            (GOOD.replace("/models/a", "/models/a b"), 4, "contains an invalid name", "/models/a"),
            (
                GOOD.replace("/models/a", "gs://models/a"),
                4,
                'has base_path "gs://models/a", a URI of a file system that servers cannot read',
                'copy the model to MODELS_DIR/a and write base_path: "/models/a"',
            ),
            (
                GOOD.replace("/models/a", "file:///srv/a"),
                4,
                'has base_path "file:///srv/a", which is not under /models',
                "/models/a",
            ),
            (
                GOOD.replace("/models/a", "file://models/a"),  # the host is models
                4,
                'has base_path "file://models/a", which is not under /models',
                "/models/a",
            ),
            (
                GOOD.replace("name:", "name:\u00a0"),
                3,
                "column 10: Interpreting non ascii codepoint 194: U+00A0 (NO-BREAK SPACE) outside strings",
                "replace it with a space",
            ),
            (
                GOOD.replace("    name", "\u3000name"),
                3,
                "column 1: Interpreting non ascii codepoint 227: U+3000 (IDEOGRAPHIC SPACE) outside strings",
                "replace it with a space",
            ),
            (
                GOOD.replace('"a"', "\u201ca\u201d"),
                3,
                "column 11: Interpreting non ascii codepoint 226: U+201C (LEFT DOUBLE QUOTATION MARK)",
                "write it in ASCII, or remove it",
            ),
            (
                GOOD.replace("name:", "name:\udcff"),
                3,
                "column 10: Interpreting non ascii codepoint 255: byte 0xFF outside strings and comments",
                "remove it",
            ),
            (
                GOOD.replace('"a"', '"a\udce4"'),
                3,
                "column 13: a string is not UTF-8 at byte 0xE4",
                "save the file as UTF-8",
            ),
            ("\ufeff" + GOOD, 1, "the file begins with a byte order mark", "save it as UTF-8 without one"),
            ("\udcff\udcfem\0o\0", 1, "the file is UTF-16", "save it as UTF-8"),
            ("m\0o\0d\0", 1, "the file is UTF-16", "save it as UTF-8"),
            (
                GOOD.replace('    model_platform: "tensorflow"\n', ""),
                2,
                "has no model_platform",
                'write model_platform: "tensorflow"',
            ),
            (
                GOOD.replace("tensorflow", "torch"),
                5,
                'has the unknown model_platform "torch"',
                'write model_platform: "tens',
            ),
            (
                with_lines("model_type: TENSORFLOW"),
                6,
                "has both model_platform and model_type",
                "remove model_type",
            ),
            (
                GOOD.replace('model_platform: "tensorflow"', "model_type: OTHER"),
                5,
                "has an unsupported model_type",
                "instead",
            ),
            (
                with_lines("model_version_policy {", "  specific {}", "}"),
                7,
                "has a specific policy without versions, so none is served",
                "add versions: N, or remove model_version_policy",
            ),
            (
                with_lines("version_labels { value: 1 }"),
                6,
                "has an empty label",
                'name it, for example key: "stable"',
            ),
            (
                with_lines('version_labels { key: "x" value: 1 }', "version_labels {", 'key: "x" value: 1 }'),
                7,
                'repeats label "x" of line 6',
                "keep one of them",
            ),
            (
                with_lines(
                    "model_version_policy { specific { versions: 1 versions: 3 } }",
                    'version_labels { key: "x" value: 2 }',
                ),
                7,
                'has label "x" for version 2, which the specific policy does not list',
                "add versions: 2 to the policy, or use a listed version (1, 3)",
            ),
        ],
    )
    def test_reports_an_error_with_its_line_and_hint(
        self, text: str, line: int, message: str, hint: str
    ) -> None:
        errors = [one for one in lint(text) if one.severity is Severity.ERROR and message in one.message]
        assert errors, lint(text)
        assert errors[0].line == line
        assert hint in errors[0].hint

    @pytest.mark.parametrize("text", ["\ufeff" + GOOD, "m\0o\0", GOOD.replace('"a"', "\u201ca\u201d")])
    def test_reports_a_wrong_character_without_the_errors_that_follow_from_it(self, text: str) -> None:
        assert len(lint(text)) == 1

    @pytest.mark.parametrize(
        ("text", "line", "message", "hint"),
        [
            (
                with_lines("model_version_policy { latest {", "num_versions: 0 } }"),
                7,
                'model "a" serves one version with num_versions: 0',
                "write how many versions to serve",
            ),
            (
                with_lines("version_labels {", 'key: "a b" value: 1 }'),
                6,
                'model "a" has label "a b", which REST requests cannot name',
                "use letters, digits",
            ),
            (
                GOOD.replace('model_platform: "tensorflow"', "model_type: TENSORFLOW"),
                5,
                'model "a" uses the deprecated model_type',
                'write model_platform: "tensorflow" instead',
            ),
        ],
    )
    def test_reports_a_note_with_its_line_and_hint(
        self, text: str, line: int, message: str, hint: str
    ) -> None:
        (note,) = lint(text)
        assert (note.severity, note.line, note.message) == (Severity.NOTE, line, message)
        assert hint in note.hint

    def test_accepts_latest_without_a_number(self) -> None:
        assert lint(with_lines("model_version_policy { latest {} }")) == ()

    def test_accepts_two_models_with_one_base_path(self) -> None:
        assert (
            lint(
                with_lines("}", "config {", 'name: "b" base_path: "/models/a/" model_platform: "tensorflow"')
            )
            == ()
        )

    def test_reports_all_errors_in_the_order_of_lines(self) -> None:
        text = (
            GOOD.replace('"a"', '"a b"')
            .replace("/models/a", "a")
            .replace("tensorflow", "torch")
            .replace("  }\n}\n", "    foo: 1\n  }\n  config {}\n}\n")
        )
        assert [one.line for one in lint(text)] == [3, 4, 5, 6, 8, 8, 8]

    def test_compares_a_repeated_label_with_the_policy_once(self) -> None:
        text = with_lines(
            "model_version_policy { specific { versions: 1 } }",
            'version_labels { key: "x" value: 1 }',
            'version_labels { key: "x" value: 7 }',
        )
        assert [(one.line, one.message.partition(",")[0]) for one in lint(text)] == [
            (8, 'model "a" repeats label "x" of line 7'),
            (8, 'model "a" has label "x" for version 7'),
        ]

    def test_formats_a_diagnostic_with_file_and_line(self) -> None:
        (error,) = lint(GOOD.replace("/models/a", "a"))
        assert error.format("models/models.config") == (
            'models/models.config:4: error: model "a" has base_path "a", which is not an absolute path; '
            'write base_path: "/models/a"'
        )

    @given(st.text(alphabet="{}[]<>:,;\"'\\#\n configmodel_stbparvz10", max_size=120))
    def test_diagnostics_of_any_text_have_a_line(self, text: str) -> None:
        assert all(one.line >= 1 for one in lint(text))

    @given(st.text())
    def test_any_unicode_gives_only_diagnostics(self, text: str) -> None:
        assert all(isinstance(one, Diagnostic) for one in lint(text))

    @pytest.mark.parametrize("comment", ["# 模型\u3000", '# caf\udce9 "', "# 'a\u00a0", "#\ufeff"])
    def test_accepts_any_character_in_comments(self, comment: str) -> None:
        assert lint(f"{comment}\n{GOOD}{comment}") == ()

    @pytest.mark.parametrize("name", ["模型", "a\u00a0", "#\u00a0", '\\"\u3000'])
    def test_accepts_any_character_in_strings(self, name: str) -> None:
        for quote in "\"'":
            text = with_lines(f"version_labels {{ key: {quote}{name}{quote} value: 1 }}")
            assert [diagnostic.severity for diagnostic in lint(text)] == [Severity.NOTE]  # not for REST

    def test_accepts_the_attributes_of_sampling(self) -> None:
        config = "logging_config { sampling_config { sampling_rate: 0.1 attributes: 3 } }"
        assert lint(with_lines(config)) == ()

    @pytest.mark.parametrize("base_path", ["file:///models/a", "file://localhost/models/a"])
    def test_accepts_file_uris(self, base_path: str) -> None:
        assert lint(GOOD.replace("/models/a", base_path)) == ()


class TestJson:
    GOOD = '[\n {"name": "a", "basePath": "/models/a",\n  "model_platform": "tensorflow"}\n]'

    def lint(self, text: str) -> list[tuple[str, int, str, str]]:
        """The diagnostics without the note about JSON."""
        note, *others = found(text)
        assert note[:3] == ("note", 1, "servers do not read JSON")
        assert note[3].endswith("tfserving format --config FILE")
        return others

    def test_accepts_a_valid_config(self) -> None:
        assert self.lint(self.GOOD) == []

    @pytest.mark.parametrize(
        "head", ['{"model_config_list": {"config": %s}}', '{"modelConfigList": %s}', '{"config": %s}', "%s"]
    )
    @pytest.mark.parametrize(
        ("old", "new", "error"),
        [
            (
                "/models/a",
                "a",
                (2, 'model "a" has base_path "a", which is not an absolute path', "write base_path: "),
            ),
            (
                '"model_platform"',
                '"modelPlattform"',
                (3, 'ModelConfig has no field "modelPlattform"', "write model_platform"),
            ),
            (
                "\n]",
                ',\n {"name": "a", "base_path": "/models/b", "model_platform": "tensorflow"}]',
                (4, 'model "a" is already listed on line 2', "use another name"),
            ),
            (
                '"}\n]',
                '",\n"model_version_policy": {"specific": {"versions": [1]}},\n"versionLabels": {"x": 2}}]',
                (
                    5,
                    'model "a" has label "x" for version 2, which the specific policy does not list',
                    "add versions: 2 to the policy, or use a listed version (1)",
                ),
            ),
        ],
    )
    def test_reports_errors_in_models(
        self, head: str, old: str, new: str, error: tuple[int, str, str]
    ) -> None:
        line, message, hint = error
        reported = self.lint(head % self.GOOD.replace(old, new))
        assert ("error", line, message) in [one[:3] for one in reported]
        assert any(one[3].startswith(hint) for one in reported)

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            (
                "[\n{,}]",
                (2, "column 2: Expecting property name enclosed in double quotes", "fix the JSON"),
            ),
            ("{}", (1, "no model is listed", None)),
            ("[]", (1, "no model is listed", None)),
            ('{"models": []}', (1, 'ModelServerConfig has no field "models"', None)),
            (
                '[{"name": "a",\n"name": "b"}]',
                (2, 'column 1: "name" occurs twice in one object', "fix the JSON"),
            ),
        ],
    )
    def test_reports_errors_in_the_file(self, text: str, error: tuple[int, str, str | None]) -> None:
        line, message, hint = error
        reported = self.lint(text)
        assert (line, message) in [(at, what) for _, at, what, _ in reported]
        assert hint is None or hint in reported[0][3]


def test_lists_only_the_largest_of_many_numbers() -> None:
    assert list_numbers([3, 1, 2]) == "1, 2, 3"
    assert list_numbers(range(1, 100)) == "…, 92, 93, 94, 95, 96, 97, 98, 99"
