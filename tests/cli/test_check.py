"""tfserving check"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.configs import JSON, TEXT, write
from tests.client.fakes import FakeRpcServer
from tests.saved_models import saved_model
from tfserving.cli.check import main
from tfserving.release.servers import ServerProcess

pytestmark = pytest.mark.usefixtures("in_repository")

CONFIGURED = ("--config", "m.config", "--models-dir", "models")


def test_accepts_a_valid_config_and_its_models(run, make_version):
    make_version("a", 1)
    assert run(main, "--config", write(TEXT), "--models-dir", "models") == (
        0,
        "m.config and models: no errors\n",
        "",
    )


def test_checks_only_the_file_without_models_dir(run):
    assert run(main, "--config", write(TEXT)) == (0, "m.config: no errors\n", "")


def test_checks_single_versions(run, make_version):
    good, bad = make_version("a", 1), make_version("a", 2)
    assert run(main, "models/a/1") == (0, "models/a/1: no errors\n", "")
    (bad / "variables" / "variables.index").unlink()
    status, out, err = run(main, "models/a/2", "models/a/1")
    assert (status, out) == (2, "models/a/1: no errors\n")
    assert err == "models/a/2: error: it has no variables/variables.index; copy or export it again\n"
    assert good.exists()


def test_names_a_version_if_the_directory_is_a_model(run, make_version):
    make_version("a", 1)
    make_version("a", 2)
    hint = "it has no saved_model.pb; give a version, such as models/a/2"
    assert run(main, "models/a") == (2, "", f"models/a: error: {hint}\n")


def test_notes_what_makes_calls_fail(run, make_version):
    model = saved_model("EagerPyFunc", "MatMul")
    model.meta_graphs[0].graph_def.node[1].attr["_XlaMustCompile"].b = True
    (make_version("a", 1) / "saved_model.pb").write_bytes(model.SerializeToString())
    status, out, err = run(main, "models/a/1")
    assert (status, out) == (0, "models/a/1: no errors\n")
    python, compiled = err.splitlines()
    assert python.startswith(
        "models/a/1: note: the model calls Python functions (EagerPyFunc), which exist only"
    )
    assert compiled.startswith(
        "models/a/1: note: the model has functions with jit_compile=True, whose calls fail"
    )
    status, _, err = run(main, "--config", write(TEXT), "--models-dir", "models")
    assert status == 0
    assert 'm.config:2: note: model "a" has a version whose model calls Python functions (EagerPyFunc)' in err
    assert "models/a/1; start the server with --xla_cpu_compilation_enabled=true, or" in err


def test_notes_a_model_without_a_default_signature(run, make_version):
    model = saved_model("Placeholder")
    del model.meta_graphs[0].signature_def["serving_default"]
    for name in ("score", "embed", "__saved_model_init_op"):
        model.meta_graphs[0].signature_def[name].method_name = "tensorflow/serving/predict"
    (make_version("a", 1) / "saved_model.pb").write_bytes(model.SerializeToString())
    write(TEXT)
    note = "has no signature serving_default (found: embed, score), so requests without signature_name fail"
    status, out, err = run(main, "models/a/1")
    assert (status, out) == (0, "models/a/1: no errors\n")
    assert err.startswith(f"models/a/1: note: the model {note}; name a signature in each request, or")
    assert f'"a" has a version whose model {note}: models/a/1; ' in run(main, *CONFIGURED)[2]


def test_notes_versions_that_do_not_fit_into_memory_during_an_update(run, make_version):
    size = sum(
        file.stat().st_size
        for file in make_version("a", 1).rglob("*")
        if file.name.startswith(("saved_model", "variables.data"))
    )
    write(TEXT)
    assert run(main, *CONFIGURED, f"--memory={2 * size}")[2] == ""
    status, out, err = run(main, *CONFIGURED, f"--memory={2 * size - 1}")
    assert (status, out) == (0, "m.config and models: no errors\n")
    assert err.startswith(
        f"m.config:1: note: the selected versions need at least {size} B of memory, and {2 * size} B while "
        f"a 1 is updated, since the old version serves until the new one is loaded; the server has "
        f"{2 * size - 1} B; use more memory"
    )
    status, out, err = run(main, *CONFIGURED, "--memory=1")
    assert (status, out) == (0, "m.config and models: no errors\n")
    assert f"need at least {size} B of memory; the server has 1 B; select fewer versions" in err
    status, _, err = run(main, *CONFIGURED, "--memory=much")
    assert (status, err) == (
        2,
        "tfserving check: error: 'much' is not a valid size; give bytes, or a number with k, m or g: 4g\n",
    )


def test_prints_one_json_document(run, make_version):
    make_version("a", 1)
    write(TEXT)
    status, out, err = run(main, *CONFIGURED, "--json", "--memory=4g")
    document = json.loads(out)
    assert (status, err, document["ok"], document["findings"]) == (0, "", True, [])
    assert document["memory"]["available"] == 4 * 2**30
    assert document["memory"]["during_update"] == 2 * document["memory"]["versions"] > 0
    write(TEXT.replace('"tensorflow"', '"x"'))
    status, out, err = run(main, *CONFIGURED, "models/b/1", "--json")
    document = json.loads(out)
    assert (status, err, document["ok"], document["memory"]) == (2, "", False, None)
    assert document["findings"] == [
        {
            "path": "m.config",
            "line": 2,
            "severity": "error",
            "message": 'model "a" has the unknown model_platform "x"',
            "hint": 'write model_platform: "tensorflow"',
        },
        {
            "path": "models/b/1",
            "line": None,
            "severity": "error",
            "message": "it does not exist",
            "hint": "copy or export it again",
        },
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to check; give --config FILE or the directories of versions"),
        (
            ("--config", "m.config", "--server", "h:1"),
            "--server needs the versions of a config; give --config and --models-dir as well",
        ),
        (("--config", "m.config", "--load"), "--load needs the versions; give --models-dir as well"),
    ],
)
def test_rejects_arguments_without_a_meaning(arguments, message, run):
    code, out, err = run(main, *arguments)
    assert (code, out) == (2, "")
    assert err.endswith(f"tfserving check: error: {message}\n")


@pytest.mark.tensorflow
def test_loads_and_runs_versions_in_a_new_process(run, models_dir):
    import tensorflow as tf

    from tfserving.export import export_saved_model

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def picky(x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), ["x must be positive"])]):
            return {"y": tf.sqrt(x)}

    export_saved_model(picky, "a", version=1, models_dir=models_dir, warmup_data={"x": [1.0]})
    arguments = ("--config", write(TEXT), "--models-dir", "models", "--load")
    assert run(main, *arguments) == (0, "m.config and models: no errors\n", "")
    export_saved_model(picky, "a", version=2, models_dir=models_dir)
    status, out, err = run(main, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("models/a/2: error: request 1 (signature 'serving_default') fails: ")
    assert "x must be positive" in err
    status, out, err = run(main, "models/a/1", "models/a/2", "--load")
    assert (status, out) == (2, "models/a/1: no errors\n")
    assert err.startswith("models/a/2: error: request 1 (signature 'serving_default') fails: ")


@pytest.mark.tensorflow
def test_reports_a_version_that_tensorflow_cannot_load(run, make_version):
    make_version("a", 1)
    status, out, err = run(main, "models/a/1", "--load")
    assert (status, out) == (2, "")
    assert err.startswith("models/a/1: error: TensorFlow cannot load the model: ")


@pytest.mark.tensorflow
@pytest.mark.usefixtures("only_named_servers")
def test_reports_ops_that_a_server_lacks_and_versions_that_it_could_not_load(
    run, make_version, rpc_server, service, monkeypatch
):
    model = saved_model("MatMul", "OpOfTomorrow", "CaseFoldUTF8")
    (make_version("half", 2) / "saved_model.pb").write_bytes(model.SerializeToString())
    write(TEXT.replace('"a"', '"half"').replace("/a", "/half"))
    service.errors["half", 2] = "Op type not registered 'OpOfTomorrow'"
    service.models["half"][2].state = 50
    with FakeRpcServer(service) as other:
        known = ServerProcess("w", other.address, engine="embedded")
        monkeypatch.setattr("tfserving.release.servers.find_servers", lambda *_, **__: [known])
        status, out, err = run(main, *CONFIGURED, "--server", f"{rpc_server.address},{other.address}")
    assert (status, out) == (2, "")
    # CaseFoldUTF8 is an op of TF Text, which may be installed here, and which tensorflow_model_server has.
    notes = [line for line in err.splitlines() if ": note: " in line]
    start = f"m.config:1: note: {rpc_server.address} can run half 2 (models/half/2) only if it has op"
    assert [note.startswith(f"{start} 'OpOfTomorrow', which is not in TensorFlow ") for note in notes] == [
        True
    ]
    for name in (rpc_server.address, f"w ({other.address})"):
        assert f"error: {name} could not load half 2: Op type not registered 'OpOfTomorrow'; " in err
    name = f"w ({other.address})"
    assert f"error: {name} cannot run half 2 (models/half/2); op 'OpOfTomorrow' is not in TensorFlow" in err


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


def test_rejects_a_config_that_could_block_or_never_end(run):
    os.mkfifo("fifo")
    for config in ("fifo", "/dev/zero"):
        status, out, err = run(main, "--config", config)
        assert (status, out) == (2, "")
        assert err == f"tfserving check: error: {config} is not a regular file; give the path of one\n"
    with open("sparse", "wb") as file:
        file.truncate(2**24 + 1)
    status, out, err = run(main, "--config", "sparse")
    assert (status, out) == (2, "")
    assert err == "tfserving check: error: sparse is too large for a config (at most 16777216 bytes)\n"


def test_reads_a_config_from_standard_input():
    command = [sys.executable, "-m", "tfserving", "check", "--config", "/dev/stdin"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, input=TEXT, cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    with open("/dev/zero") as zeros:
        done = subprocess.run(command, stdin=zeros, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "/dev/stdin is too large for a config" in done.stderr


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
