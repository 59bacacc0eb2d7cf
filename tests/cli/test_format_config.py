"""tfserving format"""

from __future__ import annotations

import pytest

from tests.cli.configs import JSON, TEXT, write
from tfserving.cli.format_config import main
from tfserving.repository.config import parse_config

pytestmark = pytest.mark.usefixtures("in_repository")


def test_prints_text_format(run):
    status, out, err = run(main, "--config", write(TEXT))
    assert (status, err) == (0, "")
    assert out == (
        'model_config_list {\n  config {\n    name: "a"\n    base_path: "/models/a"\n'
        '    model_platform: "tensorflow"\n  }\n}\n'
    )


def test_converts_json_with_a_note(run):
    status, out, err = run(main, "--config", write(JSON))
    assert status == 0
    assert parse_config(out) == parse_config(TEXT)
    assert err == "tfserving format: note: converted m.config from JSON\n"


def test_preserves_fields_with_default_values(run):
    text = TEXT.replace("}\n}", "model_version_policy { latest { num_versions: 1 } } logging_config {} }\n}")
    out = run(main, "--config", write(text))[1]
    assert "num_versions: 1" in out
    assert "logging_config {" in out


@pytest.mark.parametrize("text", ["model_config_list {\n config { nmae: 1 } }", '[\n {"nmae": 1}]'])
def test_rejects_an_unknown_field(text, run):
    status, out, err = run(main, "--config", write(text))
    assert (status, out) == (2, "")
    assert 'm.config:2: error: ModelConfig has no field "nmae"; write name\n' in err
