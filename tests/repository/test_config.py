"""models.config as text, as JSON, as a message and as what it means."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from tfserving.errors import ConfigError
from tfserving.repository import config as models_config
from tfserving.repository.config import (
    All,
    Latest,
    ModelConfig,
    ServerConfig,
    Specific,
    from_json,
    from_message,
    looks_like_json,
    parse,
    to_message,
    to_text,
)
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


def entry(**fields: object) -> str:
    """A config with one model, whose fields can be replaced or left out (None)."""
    defaults: dict[str, object] = {"name": "a", "base_path": "/models/a", "model_platform": "tensorflow"}
    given = {name: value for name, value in (defaults | fields).items() if value is not None}
    body = " ".join(f"{name}: {json.dumps(value)}" for name, value in given.items())
    return f"model_config_list {{ config {{ {body} }} }}"


class TestSelect:
    @pytest.mark.parametrize(
        ("policy", "there", "served"),
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
    def test_serves(
        self, policy: models_config.VersionPolicy, there: tuple[int, ...], served: tuple[int, ...]
    ) -> None:
        assert policy.select(there) == served

    @given(st.sets(st.integers(-(2**63), 2**63 - 1)), st.integers(0, 2**32 - 1))
    def test_latest(self, there: set[int], count: int) -> None:
        served = Latest(count).select(there)
        assert len(served) == min(len(there), max(count, 1))
        assert list(served) == sorted(served)
        assert set(served) <= there
        assert all(left < min(served) for left in there - set(served))

    @given(st.sets(st.integers(0, 9)), st.lists(st.integers(0, 9)))
    def test_specific_serves_what_is_listed_and_there(self, there: set[int], listed: list[int]) -> None:
        assert set(Specific(tuple(listed)).select(there)) == there & set(listed)

    @given(st.sets(st.integers()))
    def test_all(self, there: set[int]) -> None:
        assert All().select(there) == tuple(sorted(there))


class TestParse:
    def test_what_a_config_means(self) -> None:
        newest, two, every, chosen = parse(TEXT).models
        assert newest == ModelConfig("newest", "/models/newest")
        assert (newest.policy, newest.labels, newest.platform) == (Latest(1), {}, "tensorflow")
        assert two.policy == Latest(2)
        assert every.policy == All()
        assert chosen.policy == Specific((1, 3))
        assert chosen.labels == {"stable": 1, "canary": 3}
        assert chosen.logging

    def test_models_know_their_lines(self) -> None:
        assert [model.line for model in parse(TEXT).models] == [3, 8, 12, 16]

    def test_a_model_is_found_by_its_name(self) -> None:
        config = parse(TEXT)
        assert config.model("every") is config.models[2]
        assert config.model("nobody") is None

    def test_an_empty_list_is_a_config(self) -> None:
        assert parse("model_config_list {}") == ServerConfig()

    @pytest.mark.parametrize("text", ["latest {}", "latest { num_versions: 0 }", ""])
    def test_no_number_means_the_newest(self, text: str) -> None:
        config = entry().replace("} }", f"model_version_policy {{ {text} }} }} }}")
        assert parse(config).models[0].policy == Latest(1)

    def test_the_old_model_type(self) -> None:
        config = entry(model_platform=None).replace("name:", "model_type: TENSORFLOW name:")
        assert parse(config).models[0].platform == "tensorflow"

    def test_a_uri_is_absolute(self) -> None:
        assert parse(entry(base_path="gs://bucket/a")).models[0].base_path == "gs://bucket/a"

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
    def test_a_text_that_does_not_parse(self, text: str, line: int, column: int) -> None:
        with pytest.raises(ConfigError) as caught:
            parse(text, "the/models.config")
        start = f"Error parsing text-format tensorflow.serving.ModelServerConfig: {line}:{column}: "
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith("(the/models.config)")
        assert caught.value.code == "INVALID_ARGUMENT"

    def test_json_is_refused_with_the_way_to_convert_it(self) -> None:
        with pytest.raises(ConfigError, match=r"1:1: .*It is JSON: convert it with python -m tfserving\.rep"):
            parse('{"model_config_list": {}}')

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                entry(base_path="models/a"),
                "'models/a' is relative, an absolute path or URI is expected: write /models/a",
            ),
            (entry(base_path=None), "'' is relative"),
            (entry(model_platform=None), 'has no model_platform: write model_platform: "tensorflow"'),
            (entry(model_platform="torch"), "model_platform 'torch' is unknown: write model_platform"),
            (entry().replace("name:", "model_type: OTHER name:"), "has both model_platform and model_type"),
            (entry(model_platform=None).replace("name:", "model_type: OTHER name:"), "'other' is unknown"),
            (entry()[:-1] + entry().removeprefix("model_config_list {"), "model 'a' is listed twice"),
            ("", "no model_config_list: write model_config_list {"),
            ("custom_model_config {}", "no model_config_list"),
        ],
    )
    def test_what_servers_refuse(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse(text, "the/models.config")
        assert message in str(caught.value)
        assert str(caught.value).startswith("the/models.config: ")

    def test_messages_nested_without_end(self) -> None:
        with pytest.raises(ConfigError):
            parse("model_config_list {" * 100_000)


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
    def test_every_way_that_people_write_the_list(self, text: str) -> None:
        assert looks_like_json(text)
        assert from_json(text) == ServerConfig((ModelConfig("a", "/models/a"),))
        assert [model.line for model in from_json("\n" + text).models] == [2]

    def test_policies_and_labels(self) -> None:
        text = """[{"name": "a", "base_path": "/models/a", "model_platform": "tensorflow",
                    "model_version_policy": {"specific": {"versions": [1, "2"]}},
                    "version_labels": {"stable": 1, "canary": "2"}}]"""
        model = from_json(text).models[0]
        assert model.policy == Specific((1, 2))
        assert model.labels == {"stable": 1, "canary": 2}

    @pytest.mark.parametrize(
        ("text", "start"),
        [
            ("[\n {,}]", "2:3: Expecting property name"),
            ("{", "1:2: "),
            ('[\n{"name": "a"},\n{"nmae": "b"}]', "3:1: "),
            ('[{"name": 1}]', "1:1: "),
            ('{\n"config": [],\n"config": []}', "3:1: 'config' stands twice in one object"),
            ('[{"name": "a",\n "version_labels": {"x": 1,\n  "x": 2}}]', "3:3: 'x' stands twice"),
        ],
    )
    def test_what_is_no_config(self, text: str, start: str) -> None:
        with pytest.raises(ConfigError) as caught:
            from_json(text)
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
    def test_odd_values_are_refused(self, text: str) -> None:
        with pytest.raises(ConfigError):
            from_json(text)

    def test_text_format_is_not_taken_for_json(self) -> None:
        assert not looks_like_json(TEXT)


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
    logging=st.just(b"")
    | st.just(to_message(parse(TEXT)).model_config_list.config[3].logging_config.SerializeToString()),
)
CONFIGS = st.builds(ServerConfig, st.lists(MODELS, max_size=4, unique_by=lambda model: model.name).map(tuple))


class TestRoundTrip:
    def test_logging_is_kept(self) -> None:
        assert parse(to_text(parse(TEXT))) == parse(TEXT)
        assert "sampling_rate: 0.5" in to_text(parse(TEXT))

    @given(CONFIGS)
    def test_text(self, config: ServerConfig) -> None:
        text = to_text(config)
        assert parse(text) == config
        assert to_text(parse(text)) == text
        lines = [model.line for model in parse(text).models]
        assert lines == [number for number, line in enumerate(text.split("\n"), 1) if line == "  config {"]

    @given(CONFIGS, st.booleans())
    def test_json(self, config: ServerConfig, snake: bool) -> None:
        text = json_format.MessageToJson(to_message(config), preserving_proto_field_name=snake)
        assert from_json(text) == config

    @given(CONFIGS)
    def test_message(self, config: ServerConfig) -> None:
        data = to_message(config).SerializeToString()
        assert from_message(messages.ModelServerConfig.FromString(data)) == config

    @given(st.text())
    def test_any_text_is_a_config_or_an_error(self, text: str) -> None:
        for read in (parse, from_json):
            with contextlib.suppress(ConfigError):
                assert isinstance(read(text), ServerConfig)


def test_to_text_writes_no_more_than_needed() -> None:
    assert to_text(ServerConfig((ModelConfig("a", "/models/a", labels={"stable": 1}),))) == (
        'model_config_list {\n  config {\n    name: "a"\n    base_path: "/models/a"\n'
        '    model_platform: "tensorflow"\n'
        '    version_labels {\n      key: "stable"\n      value: 1\n    }\n  }\n}\n'
    )


def test_no_heavy_imports() -> None:
    code = "import sys, tfserving.cli.repository; print({'tensorflow', 'numpy', 'grpc'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )
