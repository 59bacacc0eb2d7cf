"""tfserving check"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.configs import JSON, TEXT, write
from tfserving.cli.check import main

pytestmark = pytest.mark.usefixtures("in_repository")


def test_accepts_a_valid_config_and_its_models(run, make_version):
    make_version("a", 1)
    assert run(main, "--config", write(TEXT), "--models-dir", "models") == (
        0,
        "m.config and models: no errors\n",
        "",
    )


def test_checks_only_the_file_without_models_dir(run):
    assert run(main, "--config", write(TEXT)) == (0, "m.config: no errors\n", "")


def test_prints_every_error(run):
    text = TEXT.replace('"tensorflow"', '"x"')
    status, out, err = run(main, "--config", write(text), "--models-dir", "models")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        'm.config:2: error: model "a" has the unknown model_platform "x"; write model_platform: "tensorflow"',
        'm.config:2: error: model "a" has base_path models/a, which does not exist; '
        "export it: tfserving export SOURCE --name a",
    ]


def test_succeeds_with_notes(run):
    status, out, err = run(main, "--config", write(JSON))
    assert (status, out) == (0, "m.config: no errors\n")
    assert err == (
        "m.config:1: note: servers do not read JSON; convert the file: tfserving format --config FILE\n"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("nothing", "cannot read nothing: No such file or directory\n"),
        (".", "cannot read .: Is a directory\n"),
    ],
)
def test_rejects_a_file_that_is_not_readable(config, message, run):
    assert run(main, "--config", config) == (2, "", f"tfserving check: error: {message}")


def test_accepts_comments_in_other_encodings(run):
    Path("m.config").write_bytes("# 模型\n".encode("gbk") + TEXT.encode() + "# Modèle".encode("latin-1"))
    assert run(main, "--config", "m.config") == (0, "m.config: no errors\n", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"model\xff",
            "column 6: Interpreting non ascii codepoint 255: byte 0xFF outside strings and comments",
        ),
        (b"\xef\xbb\xbf" + TEXT.encode(), "the file begins with a byte order mark; save it as UTF-8 without"),
        (b"\xef\xbb\xbf" + JSON.encode(), "the file begins with a byte order mark; save it as UTF-8 without"),
        (TEXT.encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        (JSON.replace('"a"', '"é"').encode("latin-1"), "column 12: byte 0xE9 is not UTF-8; save the file as"),
    ],
)
def test_rejects_other_encodings(content, message, run):
    Path("m.config").write_bytes(content)
    status, out, err = run(main, "--config", "m.config")
    assert (status, out) == (2, "")
    assert f"m.config:1: error: column 1: {message}" in err or f"m.config:1: error: {message}" in err


def test_rejects_a_missing_models_dir(run):
    status, _, err = run(main, "--config", write(TEXT), "--models-dir", "nowhere")
    assert status == 2
    assert "--models-dir nowhere is not a directory; name the one that contains NAME/VERSION" in err
