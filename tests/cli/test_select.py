"""tfserving select"""

from __future__ import annotations

import json

import pytest

from tests.cli.configs import JSON, TEXT, write
from tfserving.cli.select import main

pytestmark = pytest.mark.usefixtures("in_repository")


@pytest.mark.parametrize("text", [TEXT, JSON])
def test_prints_name_version_and_path_separated_by_tabs(text, run, make_version):
    make_version("a", 1)
    make_version("a", 2)
    status, out, _ = run(main, "--config", write(text), "--models-dir", "models")
    assert (status, out) == (0, "a\t2\tmodels/a/2\n")
    status, out, _ = run(main, "--config", "m.config", "--models-dir", "models", "--json")
    assert json.loads(out) == {"versions": [{"model": "a", "version": 2, "path": "models/a/2"}]}


def test_prints_only_diagnostics_if_there_are_errors(run, make_version):
    make_version("a", 1)
    text = TEXT.replace("}\n}", 'version_labels { key: "x" value: 9 } }\n}')
    status, out, err = run(main, "--config", write(text), "--models-dir", "models")
    assert (status, out) == (2, "")
    assert 'has label "x" for version 9, which is not on disk; assign it to another version (1)' in err


def test_rejects_two_models_of_one_name(run, make_version):
    make_version("a", 1)
    text = TEXT + TEXT.replace("model_config_list {", "")
    text = text.replace("}\n}\n\n", "}\n")
    status, out, err = run(main, "--config", write(text), "--models-dir", "models")
    assert (status, out) == (2, "")
    assert 'model "a" is already listed on line 2' in err
