"""tfserving export, and export_saved_model.py as a script."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfserving.cli.export import main

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "export_saved_model.py"


def run_script(*arguments: str | os.PathLike[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_script_prints_help_without_importing_tensorflow():
    code = "import sys, export_saved_model; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    result = run_script("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for option in ("--version", "--models-dir", "--input-name", "--image-bytes", "--warmup", "--warmup-data"):
        assert option in result.stdout


def test_script_reports_missing_requirements():
    result = subprocess.run(
        [sys.executable, "-S", SCRIPT, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("export_saved_model.py: error: No module named")
    assert "pip install -r requirements.txt" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required"),
        (["m.keras"], "required: --name"),
        (["m.keras", "--name", "m"], "m.keras does not exist"),
        (["m.keras", "--name", "../m"], '"../m" is not a valid model name'),
        (["m.keras", "--name", "a b"], '"a b" is not a valid model name'),
        (["m.keras", "--name", "it's"], "is not a valid model name"),
        (["m.keras", "--name", "m", "--version", "one"], "invalid int value: 'one'"),
        (["m.keras", "--name", "m", "--input-name", "image"], "not of the form OLD=NEW"),
        (["m.keras", "--name", "m", "--input-name", "a=b c"], "is not a valid name of an input"),
        (["m.keras", "--name", "m", "--output-name", "a=b", "--output-name", "a=c"], "renamed twice"),
        (["m.keras", "--name", "m", "--warmup", "2", "--warmup-data", "s.npz"], "not allowed with"),
        (["m.keras", "--name", "m", "--warmup", "-2"], "warmup must be 0 or more, not -2"),
        (["m.keras", "--name", "m", "--warmup-data", "s.npz"], "cannot read s.npz"),
        (["notes.txt", "--name", "m"], "notes.txt is not a .keras or .h5 file"),
        ([".", "--name", "m"], "has no saved_model.pb"),
    ],
)
def test_exits_with_2_on_invalid_arguments(arguments, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    try:
        status = main(arguments, prog="export_saved_model.py")
    except SystemExit as stop:
        status = stop.code
    printed = capfd.readouterr()
    assert status == 2
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory, keras_model):
    path = tmp_path_factory.mktemp("source") / "model.keras"
    keras_model.save(path)
    return path


@pytest.mark.tensorflow
def test_prints_path_signatures_and_next_commands(keras_file, tmp_path):
    arguments = [
        keras_file,
        "--name",
        "digits",
        "--input-name",
        "pixels=image",
        "--output-name",
        "output_0=wide",
    ]
    first = run_script(*arguments, "--image-bytes", "--warmup", "2", "--models-dir", tmp_path / "my models")
    assert first.returncode == 0, first.stderr
    assert first.stderr == f"exporting {keras_file} as digits ...\n"
    lines = first.stdout.splitlines()
    assert lines[0] == str(tmp_path / "my models" / "digits" / "1")
    assert "signature_def['serving_default'] (tensorflow/serving/predict)" in lines
    assert any(line.startswith("  inputs['image']  DT_FLOAT (-1, 4, 6, 1)") for line in lines)
    assert any("outputs['wide']" in line for line in lines)
    assert "pixels stay 0 to 255" in first.stdout
    assert f"MODELS_DIR='{tmp_path}/my models' MODEL_NAME=digits bash build.sh" in first.stdout

    older = run_script(*arguments, "--models-dir", tmp_path / "my models", "--version", "0")
    assert (
        f"MODEL_VERSIONS=0 MODELS_DIR='{tmp_path}/my models' MODEL_NAME=digits bash build.sh" in older.stdout
    )

    again = run_script(*arguments, "--models-dir", tmp_path / "my models", "--version", "1")
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith("export_saved_model.py: error: ")
    assert "never overwritten" in again.stderr


@pytest.mark.tensorflow
def test_prints_the_command_that_serves_the_version(keras_file, tmp_path, capfd):
    assert main([str(keras_file), "--name", "digits", "--models-dir", str(tmp_path)]) == 0
    assert capfd.readouterr().out.endswith(
        f"Next:\n  tfserving serve --model_name=digits --model_base_path={tmp_path}/digits\n"
    )


@pytest.mark.tensorflow
def test_exits_with_1_without_a_traceback_if_keras_fails(keras_file, tmp_path):
    (tmp_path / "broken.keras").write_bytes(keras_file.read_bytes()[:500])
    result = run_script(tmp_path / "broken.keras", "--name", "m", "--models-dir", tmp_path / "models")
    assert result.returncode == 1
    assert "export_saved_model.py: error: Keras cannot load" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.tensorflow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_export_leaves_nothing_behind(keras_file, tmp_path, number, status):
    models_dir = tmp_path / "models"
    arguments = [keras_file, "--name", "m", "--models-dir", models_dir, "--image-bytes", "--warmup", "100"]
    with subprocess.Popen(
        [sys.executable, SCRIPT, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(models_dir.glob("m/.*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert errors.endswith("export_saved_model.py: interrupted, nothing was exported\n")
    assert not list(models_dir.iterdir())
