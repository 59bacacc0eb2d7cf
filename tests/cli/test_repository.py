"""`python -m tfserving.repository`: what it prints where, and its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tfserving.cli import repository as command
from tfserving.repository.config import parse
from tfserving.wire import messages

MakeVersion = Callable[..., Path]
Run = Callable[..., "tuple[int, str, str]"]

CONFIG = 'model_config_list {\n config { name: "a" base_path: "/models/a" model_platform: "tensorflow" }\n}\n'
JSON = '[{"name": "a", "base_path": "/models/a", "modelPlatform": "tensorflow"}]'


@pytest.fixture(autouse=True)
def _in_tmp_path(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models_dir.parent)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("check", "--config", "f")` gives exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = command.main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def write(text: str, name: str = "m.config") -> str:
    Path(name).write_text(text)
    return name


class TestCheck:
    def test_a_good_config(self, run: Run, make_version: MakeVersion) -> None:
        make_version("a", 1)
        assert run("check", "--config", write(CONFIG), "--models-dir", "models") == (
            0,
            "m.config and models: no errors\n",
            "",
        )

    def test_without_a_directory_only_the_file_is_checked(self, run: Run) -> None:
        assert run("check", "--config", write(CONFIG)) == (0, "m.config: no errors\n", "")

    def test_every_problem_is_printed(self, run: Run) -> None:
        code, out, err = run(
            "check", "--config", write(CONFIG.replace("tensorflow", "x")), "--models-dir", "models"
        )
        assert (code, out) == (2, "")
        assert err.splitlines() == [
            "m.config:2: error: model 'a': model_platform 'x' is unknown: "
            'write model_platform: "tensorflow"',
            "m.config:2: error: model 'a': models/a does not exist: make it: "
            "python export_saved_model.py SOURCE --name a",
        ]

    def test_notes_are_no_failure(self, run: Run) -> None:
        code, out, err = run("check", "--config", write(JSON))
        assert (code, out) == (0, "m.config: no errors\n")
        assert err.startswith("m.config:1: note: this is JSON")

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ("nothing", "nothing: No such file or directory: name a models.config"),
            (".", ".: Is a directory: name a models.config"),
        ],
    )
    def test_a_file_that_cannot_be_read(self, config: str, message: str, run: Run) -> None:
        code, out, err = run("check", "--config", config)
        assert (code, out) == (2, "")
        assert err.startswith(f"python -m tfserving.repository: error: {message}")

    def test_a_file_that_is_no_text(self, run: Run) -> None:
        Path("m.config").write_bytes(b"model\xff")
        assert run("check", "--config", "m.config")[2].endswith(
            "byte 5 is no UTF-8: save the file as UTF-8\n"
        )

    def test_models_dir_must_be_there(self, run: Run) -> None:
        code, _, err = run("check", "--config", write(CONFIG), "--models-dir", "nowhere")
        assert code == 2
        assert "--models-dir 'nowhere' is no directory: name the one that holds NAME/VERSION" in err

    def test_models_that_the_quickstart_makes(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(command, "_CHECKOUT", tmp_path)
        config = write(CONFIG, "models/models.config")
        assert "quickstart.sh" not in run("check", "--config", config, "--models-dir", "models")[2]
        Path("quickstart.sh").touch()
        assert "bash quickstart.sh makes" in run("check", "--config", config, "--models-dir", "models")[2]
        write("broken", "models/models.config")
        assert run("check", "--config", config, "--models-dir", "models")[0] == 2


class TestPlan:
    def test_prints_lines_for_scripts(self, run: Run, make_version: MakeVersion) -> None:
        make_version("a", 1)
        make_version("a", 2)
        for text in (CONFIG, JSON):
            code, out, _ = run("plan", "--config", write(text), "--models-dir", "models")
            assert (code, out) == (0, "a\t2\tmodels/a/2\n")

    def test_prints_nothing_but_problems_when_there_are_errors(
        self, run: Run, make_version: MakeVersion
    ) -> None:
        make_version("a", 1)
        text = CONFIG.replace("}\n}", 'version_labels { key: "x" value: 9 } }\n}')
        code, out, err = run("plan", "--config", write(text), "--models-dir", "models")
        assert (code, out) == (2, "")
        assert "label 'x' stands for version 9, which is not on disk: point it to 1" in err

    def test_two_models_of_one_name_are_refused(self, run: Run, make_version: MakeVersion) -> None:
        make_version("a", 1)
        text = CONFIG + CONFIG.replace("model_config_list {", "")
        text = text.replace("}\n}\n\n", "}\n")
        code, out, err = run("plan", "--config", write(text), "--models-dir", "models")
        assert (code, out) == (2, "")
        assert "the name is in use on line 2" in err


class TestFormat:
    def test_text_format(self, run: Run) -> None:
        code, out, err = run("format", "--config", write(CONFIG))
        assert (code, err) == (0, "")
        assert out == (
            'model_config_list {\n  config {\n    name: "a"\n    base_path: "/models/a"\n'
            '    model_platform: "tensorflow"\n  }\n}\n'
        )

    def test_json_is_converted_with_a_note(self, run: Run) -> None:
        code, out, err = run("format", "--config", write(JSON))
        assert code == 0
        assert parse(out) == parse(CONFIG)
        assert err == "python -m tfserving.repository: note: m.config is JSON and was converted\n"

    def test_keeps_what_is_not_needed(self, run: Run) -> None:
        text = CONFIG.replace(
            "}\n}", "model_version_policy { latest { num_versions: 1 } } logging_config {} }\n}"
        )
        out = run("format", "--config", write(text))[1]
        assert "num_versions: 1" in out
        assert "logging_config {" in out

    @pytest.mark.parametrize("text", ["model_config_list {\n config { nmae: 1 } }", '[\n {"nmae": 1}]'])
    def test_what_is_no_config(self, text: str, run: Run) -> None:
        code, out, err = run("format", "--config", write(text))
        assert (code, out) == (2, "")
        assert "m.config:2: error: there is no field 'nmae' in ModelConfig: write name\n" in err


class TestVersions:
    def test_versions(self, run: Run, make_version: MakeVersion) -> None:
        for version in (10, 9, "v3"):
            make_version("a", version)
        assert run("versions", "a", "--models-dir", "models") == (0, "9\n10\n", "")

    def test_of_a_missing_model(self, run: Run) -> None:
        code, out, err = run("versions", "a", "--models-dir", "models")
        assert (code, out) == (2, "")
        assert err == (
            "python -m tfserving.repository: error: models/a: cannot be listed (No such file or directory): "
            "a directory of versions is needed\n"
        )

    def test_next_version(self, run: Run, make_version: MakeVersion) -> None:
        assert run("next-version", "a", "--models-dir", "models") == (0, "1\n", "")
        make_version("a", 4)
        assert run("next-version", "a", "--models-dir", "models") == (0, "5\n", "")

    @pytest.mark.parametrize("name", ["../a", "a b", "a;b", "", "a'b", "-a/"])
    @pytest.mark.parametrize("verb", ["versions", "next-version"])
    def test_names_that_would_do_harm(self, verb: str, name: str, run: Run) -> None:
        code, out, err = run(verb, "--models-dir", "models", "--", name)
        assert (code, out) == (2, "")
        assert "is no model name: use letters, digits" in err


class TestSignature:
    def test_shows_what_a_version_takes(self, run: Run, make_version: MakeVersion) -> None:
        model = messages.SavedModel()
        graph = model.meta_graphs.add()
        graph.meta_info_def.tags.append("serve")
        signature = graph.signature_def["serving_default"]
        signature.method_name = "tensorflow/serving/predict"
        signature.inputs["image"].dtype = 1
        signature.inputs["image"].name = "serving_default_image:0"
        signature.inputs["image"].tensor_shape.dim.add(size=-1)
        signature.inputs["image"].tensor_shape.dim.add(size=64)
        (make_version("a", 1) / "saved_model.pb").write_bytes(model.SerializeToString())
        code, out, err = run("signature", "models/a/1")
        assert (code, err) == (0, "")
        assert "serving_default" in out
        assert "image" in out
        assert "(-1, 64)" in out

    def test_a_half_copied_version(self, run: Run) -> None:
        code, out, err = run("signature", "models")
        assert (code, out) == (2, "")
        assert "models has no saved_model.pb: copy or export the model again" in err

    def test_a_file_that_is_no_model(self, run: Run, make_version: MakeVersion) -> None:
        (make_version("a", 1) / "saved_model.pb").write_bytes(b"\xff" * 9)
        code, _, err = run("signature", "models/a/1")
        assert code == 2
        assert "models/a/1/saved_model.pb" in err


class TestUsage:
    def test_help_has_examples(self, run: Run) -> None:
        code, out, _ = run("--help")
        assert code == 0
        for name in ("check", "plan", "format", "versions", "next-version", "signature"):
            assert f"python -m tfserving.repository {name} " in out

    @pytest.mark.parametrize("name", ["check", "plan", "format", "versions", "next-version", "signature"])
    def test_every_command_has_help(self, name: str, run: Run) -> None:
        code, out, _ = run(name, "--help")
        assert code == 0
        assert out.startswith(f"usage: python -m tfserving.repository {name}")

    @pytest.mark.parametrize(
        "arguments", [(), ("guess",), ("check",), ("plan", "--config", "x"), ("versions", "a")]
    )
    def test_misuse(self, arguments: tuple[str, ...], run: Run) -> None:
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert "usage: " in err

    def test_a_reader_that_has_enough_is_no_traceback(self, make_version: MakeVersion) -> None:
        make_version("a", 1)
        reading, writing = os.pipe()
        os.close(reading)
        process = subprocess.run(
            [sys.executable, "-m", "tfserving.repository", "versions", "a", "--models-dir", "models"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            check=False,
        )
        os.close(writing)
        assert (process.returncode, process.stderr) == (1, "")
