"""Where the fields of a configuration stand."""

from __future__ import annotations

import json

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from tfserving.repository.text_positions import Field, read, snake_case
from tfserving.wire import messages

TEXT = """\
# a comment with { and "
model_config_list: {
  config {
    name: 'a "quoted" name'  base_path: "/models/" "a"
    model_version_policy < specific { versions: [1, 2] versions: 3 } >;
    version_labels { key: "st\\141ble" value: 1 },
  }
  config: [{ name: "b" }, { name: "c"
  }]
}
"""


def test_fields_have_their_lines_and_columns() -> None:
    models = read(TEXT).first("model_config_list")
    assert (models.line, models.column) == (2, 1)
    assert [(entry.line, entry.column) for entry in models.all("config")] == [(3, 3), (8, 12), (8, 27)]
    entry = models.all("config")[0]
    assert [(field.name, field.line, field.column) for field in entry.fields] == [
        ("name", 4, 5),
        ("base_path", 4, 30),
        ("model_version_policy", 5, 5),
        ("version_labels", 6, 5),
    ]


def test_values_are_without_quotes_and_escapes() -> None:
    entry = read(TEXT).first("model_config_list").first("config")
    assert entry.first("name").value == 'a "quoted" name'
    assert entry.first("base_path").value == "/models/a"
    assert entry.first("version_labels").first("key").value == "stable"
    assert entry.first("version_labels").first("value").value == "1"


def test_lists_and_repeated_fields_are_one() -> None:
    specific = (
        read(TEXT).first("model_config_list").first("config").first("model_version_policy").first("specific")
    )
    assert [version.value for version in specific.all("versions")] == ["1", "2", "3"]


def test_a_missing_field_is_where_its_message_is() -> None:
    entry = read(TEXT).first("model_config_list").all("config")[2]
    assert entry.first("base_path").line == 8


def test_the_text_of_an_any() -> None:
    root = read("custom_model_config {\n [type.googleapis.com/a.B] { c: 1 }\n}\nmodel_config_list {}")
    assert [field.name for field in root.first("custom_model_config").fields] == ["[type.googleapis.com/a.B]"]
    assert root.first("model_config_list").line == 4


def test_json() -> None:
    root = read('{\n "modelConfigList": {"config": [\n  {"name": "a"},\n  {"name": "b\\u00e9\\/"}]}\n}')
    entries = root.first("model_config_list").all("config")
    assert [entry.line for entry in entries] == [3, 4]
    assert entries[1].first("name").value == "bé/"


def test_a_json_list_has_items() -> None:
    root = read('[\n {"name": "a"},\n {"name": "b"}]')
    assert root.items is not None
    assert [item.line for item in root.items] == [2, 3]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("modelConfigList", "model_config_list"), ("model_config_list", "model_config_list"), ("name", "name")],
)
def test_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert isinstance(read(text), Field)


@given(st.text(alphabet="{}[]<>:,;\"'\\#\n aux3", max_size=60))
def test_any_text_of_marks_is_read(text: str) -> None:
    assert isinstance(read(text), Field)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON_VALUES, min_size=1, max_size=5), st.booleans())
def test_names_of_any_json_object_are_found(value: dict[str, object], pretty: bool) -> None:
    root = read(json.dumps(value, indent=1 if pretty else None))
    assert [field.name for field in root.fields] == list(value)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_names_that_protobuf_writes_are_found(models: list[str]) -> None:
    message = messages.ModelServerConfig()
    for name in models:
        message.model_config_list.config.add(name=name, base_path="x")
    entries = (
        read(text_format.MessageToString(message, as_utf8=True)).first("model_config_list").all("config")
    )
    assert [entry.first("name").value or "" for entry in entries] == [
        name if entry.all("name") else "" for name, entry in zip(models, entries, strict=True)
    ]
    assert [entry.line for entry in entries] == sorted(entry.line for entry in entries)


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (r'"\303\251"', "é"),
        (r'"\xc3\xa9"', "é"),
        (r'"\u00e9"', "é"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\ud83d"', "\N{REPLACEMENT CHARACTER}"),
        (r'"\377"', "\N{REPLACEMENT CHARACTER}"),
        (r'"a\tb\\n\q"', "a\tb\\nq"),
        ('"open', "open"),
        ('"', ""),
        ('"\\', ""),
    ],
)
def test_escapes(literal: str, value: str) -> None:
    assert read(f"name: {literal}").first("name").value == value


@pytest.mark.parametrize("opening", ["a {", "a: [", "[", "{", "a: [{", "a <"])
def test_no_text_is_too_deep(opening: str) -> None:
    assert list(read(opening * 5_000).walk())
