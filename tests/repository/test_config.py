"""models.config in text format and JSON: parsing, meaning, and what is rejected."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from tfserving.errors import ConfigError
from tfserving.repository.config import (
    PLATFORM,
    All,
    Latest,
    ModelConfig,
    ServerConfig,
    Specific,
    VersionPolicy,
    from_message,
    parse_config,
)
from tfserving.repository.config_text import format_message, is_json, read_message
from tfserving.wire import messages

TEXT = """\
# one model for each policy
model_config_list {
  config {
    name: "newest"
    base_path: "/models/newest"
    model_platform: "tensorflow"
  }
  config {
    name: "two" base_path: "/models/two" model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 2 } }
  }
  config {
    name: "every" base_path: "/models/every" model_platform: "tensorflow"
    model_version_policy { all {} }
  }
  config {
    name: "chosen" base_path: "/models/chosen" model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 3 } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: "canary" value: 3 }
    logging_config { sampling_config { sampling_rate: 0.5 } }
  }
}
"""


def to_message(config: ServerConfig) -> Any:
    """The ModelServerConfig message of a configuration."""
    message = messages.ModelServerConfig()
    message.model_config_list.SetInParent()
    for model in config.models:
        entry = message.model_config_list.config.add(
            name=model.name, base_path=model.base_path, model_platform=PLATFORM
        )
        entry.version_labels.update(model.labels)
        policy = entry.model_version_policy
        if isinstance(model.policy, All):
            policy.all.SetInParent()
        elif isinstance(model.policy, Specific):
            policy.specific.SetInParent()
            policy.specific.versions.extend(model.policy.versions)
        elif model.policy != Latest():
            policy.latest.num_versions = model.policy.num_versions
    return message


def to_text(config: ServerConfig) -> str:
    """The configuration in text format."""
    return format_message(to_message(config))


def entry(**fields: object) -> str:
    """A config with one model; `fields` replace its fields, None removes one."""
    defaults: dict[str, object] = {"name": "a", "base_path": "/models/a", "model_platform": "tensorflow"}
    given = {name: value for name, value in (defaults | fields).items() if value is not None}
    body = " ".join(f"{name}: {json.dumps(value)}" for name, value in given.items())
    return f"model_config_list {{ config {{ {body} }} }}"


class TestSelect:
    @pytest.mark.parametrize(
        ("policy", "found", "served"),
        [
            (Latest(), (1, 2, 10), (10,)),
            (Latest(2), (10, 1, 2), (2, 10)),
            (Latest(5), (1, 2), (1, 2)),
            (Latest(0), (1, 2), (2,)),
            (Latest(), (), ()),
            (All(), (3, 1, 2), (1, 2, 3)),
            (All(), (), ()),
            (Specific((3, 1)), (1, 2, 3), (1, 3)),
            (Specific((1, 7)), (1, 2), (1,)),
            (Specific((7,)), (1, 2), ()),
            (Specific(()), (1, 2), ()),
        ],
    )
    def test_selects_versions_on_disk(
        self, policy: VersionPolicy, found: tuple[int, ...], served: tuple[int, ...]
    ) -> None:
        assert policy.select(found) == served

    @given(st.sets(st.integers(-(2**63), 2**63 - 1)), st.integers(0, 2**32 - 1))
    def test_latest_selects_the_largest(self, found: set[int], count: int) -> None:
        served = Latest(count).select(found)
        assert len(served) == min(len(found), max(count, 1))
        assert list(served) == sorted(served)
        assert set(served) <= found
        assert all(other < min(served) for other in found - set(served))

    @given(st.sets(st.integers(0, 9)), st.lists(st.integers(0, 9)))
    def test_specific_selects_listed_versions_on_disk(self, found: set[int], listed: list[int]) -> None:
        assert set(Specific(tuple(listed)).select(found)) == found & set(listed)

    @given(st.sets(st.integers()))
    def test_all_selects_every_version(self, found: set[int]) -> None:
        assert All().select(found) == tuple(sorted(found))


class TestParse:
    def test_reads_names_policies_and_labels(self) -> None:
        newest, two, every, chosen = parse_config(TEXT).models
        assert newest == ModelConfig("newest", "/models/newest")
        assert (newest.policy, newest.labels) == (Latest(1), {})
        assert two.policy == Latest(2)
        assert every.policy == All()
        assert chosen.policy == Specific((1, 3))
        assert chosen.labels == {"stable": 1, "canary": 3}

    def test_accepts_an_empty_list(self) -> None:
        assert parse_config("model_config_list {}") == ServerConfig()

    @pytest.mark.parametrize("text", ["latest {}", "latest { num_versions: 0 }", ""])
    def test_latest_without_a_number_means_one_version(self, text: str) -> None:
        config = entry().replace("} }", f"model_version_policy {{ {text} }} }} }}")
        assert parse_config(config).models[0].policy == Latest(1)

    def test_accepts_the_deprecated_model_type(self) -> None:
        config = entry(model_platform=None).replace("name:", "model_type: TENSORFLOW name:")
        assert parse_config(config).models[0].name == "a"

    def test_accepts_a_uri_of_a_file(self) -> None:
        assert parse_config(entry(base_path="file:///models/a")).models[0].base_path == "file:///models/a"

    def test_reports_where_a_character_outside_ascii_is(self) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_config("model_config_list {\n  \u00a0config {} }", "the/models.config")
        assert str(caught.value) == (
            "Error parsing text-format tensorflow.serving.ModelServerConfig: 2:3: Interpreting non ascii "
            "codepoint 194: U+00A0 (NO-BREAK SPACE) outside strings and comments; replace it with a space "
            "(the/models.config)"
        )

    @pytest.mark.parametrize(
        ("text", "line", "column"),
        [
            ('model_config_list {\n  config {\n    nmae: "a"\n  }\n}', 3, 5),
            ('model_config_list {\n  config {\n    name "a"\n  }\n}', 3, 10),
            ("model_config_list {\n  config {", 2, 10),
            ("models {}", 1, 1),
            ('{"model_config_list": {}}', 1, 1),
            ("model_config_list { config { model_version_policy { all {} latest {} } } }", 1, 60),
            ('model_config_list { config { name: "a" name: "b" } }', 1, 46),
        ],
    )
    def test_reports_a_syntax_error_as_tensorflow_model_server_does(
        self, text: str, line: int, column: int
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_config(text, "the/models.config")
        start = f"Error parsing text-format tensorflow.serving.ModelServerConfig: {line}:{column}: "
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith("(the/models.config)")
        assert caught.value.code == "INVALID_ARGUMENT"

    def test_rejects_json_with_the_command_that_converts_it(self) -> None:
        with pytest.raises(
            ConfigError, match=r"1:1: .*The file is JSON; convert it: tfserving format --config"
        ):
            parse_config('{"model_config_list": {}}')

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                entry(base_path="models/a"),
                'has base_path "models/a", which is not an absolute path; write base_path: "/models/a"',
            ),
            (
                entry(base_path="s3://bucket/a"),
                'has base_path "s3://bucket/a", a URI of a file system that servers cannot read; '
                'copy the model to MODELS_DIR/a and write base_path: "/models/a"',
            ),
            (entry(base_path=None), 'has no base_path; write base_path: "/models/a"'),
            (entry(model_platform=None), 'has no model_platform; write model_platform: "tensorflow"'),
            (entry(model_platform="torch"), 'has the unknown model_platform "torch"; write model_platform'),
            (entry().replace("name:", "model_type: OTHER name:"), "has both model_platform and model_type"),
            (
                entry(model_platform=None).replace("name:", "model_type: OTHER name:"),
                "has an unsupported model_type",
            ),
            (entry()[:-1] + entry().removeprefix("model_config_list {"), 'model "a" is listed twice'),
            ("", "no model_config_list; write model_config_list {"),
            ("custom_model_config {}", "no model_config_list"),
        ],
    )
    def test_rejects_what_servers_reject(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_config(text, "the/models.config")
        assert message in str(caught.value)
        assert str(caught.value).startswith("the/models.config: ")

    def test_rejects_deeply_nested_messages(self) -> None:
        with pytest.raises(ConfigError):
            parse_config("model_config_list {" * 100_000)


class TestJson:
    MODEL = '{"name": "a", "base_path": "/models/a", "model_platform": "tensorflow"}'

    @pytest.mark.parametrize(
        "text",
        [
            f'{{"model_config_list": {{"config": [{MODEL}]}}}}',
            f'{{"modelConfigList": {{"config": [{MODEL}]}}}}',
            f'{{"model_config_list": [{MODEL}]}}',
            f'{{"modelConfigList": [{MODEL}]}}',
            f'{{"config": [{MODEL}]}}',
            f"[{MODEL}]",
            '[{"name": "a", "basePath": "/models/a", "modelPlatform": "tensorflow"}]',
        ],
    )
    def test_reads_each_form_of_the_list(self, text: str) -> None:
        assert is_json(text)
        assert from_message(read_message(text)) == ServerConfig((ModelConfig("a", "/models/a"),))

    def test_reads_policies_and_labels(self) -> None:
        text = """[{"name": "a", "base_path": "/models/a", "model_platform": "tensorflow",
                    "model_version_policy": {"specific": {"versions": [1, "2"]}},
                    "version_labels": {"stable": 1, "canary": "2"}}]"""
        model = from_message(read_message(text)).models[0]
        assert model.policy == Specific((1, 2))
        assert model.labels == {"stable": 1, "canary": 2}

    @pytest.mark.parametrize(
        ("text", "start"),
        [
            ("[\n {,}]", "2:3: Expecting property name"),
            ("{", "1:2: "),
            ('[\n{"name": "a"},\n{"nmae": "b"}]', "3:1: "),
            ('[{"name": 1}]', "1:1: "),
            ('{\n"config": [],\n"config": []}', '3:1: "config" occurs twice in one object'),
            ('[{"name": "a",\n "version_labels": {"x": 1,\n  "x": 2}}]', '3:3: "x" occurs twice'),
        ],
    )
    def test_reports_a_syntax_error_with_its_position(self, text: str, start: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read_message(text)
        assert str(caught.value).startswith(
            f"Error parsing JSON of tensorflow.serving.ModelServerConfig: {start}"
        )

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 100_000,
            "[1]",
            "[null]",
            '["a"]',
            '{"model_config_list": "a"}',
            '{"model_config_list": {"config": 1}}',
            '{"custom_model_config": {"@type": "type.googleapis.com/a.B"}}',
            '{"custom_model_config": 1}',
            '{"model_config_list": null}',
            '[{"name": "a", "version_labels": [{"key": "x", "value": 1}]}]',
            '[{"name": "a", "version_labels": {"x": "one"}}]',
            '[{"name": "a", "model_version_policy": {"all": {}, "latest": {}}}]',
            '[{"name": "a", "model_version_policy": {"specific": {"versions": [1.5]}}}]',
            '[{"name": "\\ud800"}]',
        ],
    )
    def test_rejects_invalid_values(self, text: str) -> None:
        with pytest.raises(ConfigError):
            from_message(read_message(text))

    def test_text_format_is_not_json(self) -> None:
        assert not is_json(TEXT)


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
VERSIONS = st.integers(-(2**63), 2**63 - 1)
POLICIES = (
    st.builds(Latest, st.integers(1, 2**32 - 1))
    | st.builds(All)
    | st.builds(Specific, st.lists(VERSIONS).map(tuple))
)
MODELS = st.builds(
    ModelConfig,
    name=st.text(),
    base_path=st.text().map(lambda text: f"/models/{text}"),
    policy=POLICIES,
    labels=st.dictionaries(st.text(), VERSIONS, max_size=3),
)
CONFIGS = st.builds(ServerConfig, st.lists(MODELS, max_size=4, unique_by=lambda model: model.name).map(tuple))


class TestRoundTrip:
    @given(CONFIGS)
    def test_a_config_survives_text_format(self, config: ServerConfig) -> None:
        assert parse_config(to_text(config)) == config

    @given(CONFIGS, st.booleans())
    def test_a_config_survives_json(self, config: ServerConfig, snake: bool) -> None:
        text = json_format.MessageToJson(to_message(config), preserving_proto_field_name=snake)
        assert from_message(read_message(text)) == config

    @given(CONFIGS)
    def test_a_config_survives_serialization(self, config: ServerConfig) -> None:
        data = to_message(config).SerializeToString()
        assert from_message(messages.ModelServerConfig.FromString(data)) == config

    @given(st.text())
    def test_any_text_is_a_config_or_rejected(self, text: str) -> None:
        for read in (parse_config, lambda text: from_message(read_message(text))):
            with contextlib.suppress(ConfigError):
                assert isinstance(read(text), ServerConfig)
