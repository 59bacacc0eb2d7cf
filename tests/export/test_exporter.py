"""export_saved_model with real models of each kind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfserving.errors import ExportError, InvalidInputError, RepositoryError
from tfserving.export import export_saved_model, sources
from tfserving.repository import versions
from tfserving.repository.warmup_records import read_warmup, warmup_file, write_warmup
from tfserving.wire.signatures import read_saved_model

pytestmark = pytest.mark.tensorflow

PIXELS = np.linspace(0, 1, 24, dtype=np.float32).reshape(1, 4, 6, 1)


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def names(version: Path, signature: str = "serving_default") -> tuple[list[str], list[str]]:
    found = read_saved_model(version)[signature]
    return list(found.inputs), list(found.outputs)


class TestKeras:
    def test_exports_a_model(self, keras_model, models_dir, call_signature):
        path = export_saved_model(keras_model, "digits", models_dir=models_dir)
        assert path == models_dir / "digits" / "1"
        assert names(path) == (["pixels"], ["output_0", "output_1"])
        outputs = call_signature(path, pixels=PIXELS)
        expected = keras_model(PIXELS)
        np.testing.assert_allclose(outputs["output_0"], expected[0], rtol=1e-5)
        np.testing.assert_allclose(outputs["output_1"], expected[1], rtol=1e-5)

    def test_renames_inputs_and_outputs(self, keras_model, models_dir, call_signature):
        path = export_saved_model(
            keras_model,
            "digits",
            models_dir=models_dir,
            input_names={"pixels": "image"},
            output_names={"output_0": "output_1", "output_1": "slim"},
        )
        assert names(path) == (["image"], ["output_1", "slim"])
        assert names(path, "serve") == (["image"], ["output_1", "slim"])
        outputs = call_signature(path, image=PIXELS)
        np.testing.assert_allclose(outputs["output_1"], keras_model(PIXELS)[0], rtol=1e-5)
        np.testing.assert_allclose(outputs["slim"], keras_model(PIXELS)[1], rtol=1e-5)
        assert tree(models_dir / "digits") == sorted(["1", *(f"1/{name}" for name in tree(path))])

    def test_tf_saved_model_load_has_the_new_names(self, keras_model, models_dir):
        import tensorflow as tf

        path = export_saved_model(keras_model, "m", models_dir=models_dir, input_names={"pixels": "image"})
        function = tf.saved_model.load(str(path)).signatures["serving_default"]
        assert set(function(image=PIXELS)) == {"output_0", "output_1"}

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    @pytest.mark.filterwarnings("ignore")
    def test_exports_a_file(self, keras_model, models_dir, tmp_path, call_signature, suffix):
        file = tmp_path / f"model{suffix}"
        keras_model.save(file)
        path = export_saved_model(file, "m", models_dir=models_dir, output_names={"output_0": "wide"})
        np.testing.assert_allclose(
            call_signature(path, pixels=PIXELS)["wide"], keras_model(PIXELS)[0], rtol=1e-5
        )

    def test_exports_a_model_with_strings_and_a_table(self, models_dir, call_signature):
        import keras

        words = keras.Input((), dtype="string", name="words")
        model = keras.Model(words, keras.layers.StringLookup(vocabulary=["apple", "banana"])(words))
        path = export_saved_model(model, "m", models_dir=models_dir, output_names={"output_0": "ids"})
        assert call_signature(path, words=["banana", "zebra"])["ids"].tolist() == [2, 0]

    @pytest.mark.parametrize("kind", ["functional", "sequential", "two inputs"])
    def test_preserves_a_fixed_batch_size(self, models_dir, kind):
        import keras

        x = keras.Input(batch_shape=(4, 3), name="x")
        if kind == "functional":
            model = keras.Model(x, keras.layers.Dense(2)(x))
        elif kind == "sequential":
            model = keras.Sequential([x, keras.layers.Dense(2)])
        else:
            free = keras.Input((5,), name="free")
            outputs = [keras.layers.Dense(2)(x), keras.layers.Dense(1)(free)]
            model = keras.Model({"x": x, "free": free}, outputs)
        path = export_saved_model(model, "m", models_dir=models_dir, output_names={"output_0": "y"}, warmup=2)
        signature = read_saved_model(path)["serving_default"]
        assert signature.inputs["x"].shape == (4, 3)
        assert signature.outputs["y"].shape == (4, 2)
        if kind == "two inputs":
            assert signature.inputs["free"].shape == (None, 5)

    def test_exports_a_stateful_rnn(self, models_dir, call_signature):
        import keras

        model = keras.Sequential(
            [keras.Input(batch_shape=(2, 5, 3), name="steps"), keras.layers.LSTM(4, stateful=True)]
        )
        path = export_saved_model(model, "m", models_dir=models_dir, warmup=1)
        assert read_saved_model(path)["serving_default"].inputs["steps"].shape == (2, 5, 3)
        steps = np.ones((2, 5, 3), np.float32)
        np.testing.assert_allclose(
            call_signature(path, steps=steps)["output_0"], model(steps), rtol=1e-5, atol=1e-6
        )

    def test_names_the_layer_and_the_cause(self, models_dir):
        import keras

        class Broken(keras.layers.Layer):
            def compute_output_spec(self, inputs):
                return keras.KerasTensor(inputs.shape, inputs.dtype)

            def call(self, inputs):
                raise ValueError("the cause")

        model = keras.Sequential([keras.Input((3,)), Broken()])
        with pytest.raises(ExportError, match=r"when calling Broken\.call\(\)\. the cause$"):
            export_saved_model(model, "m", models_dir=models_dir)
        assert tree(models_dir) == []

    def test_rejects_an_unbuilt_model(self, models_dir):
        import keras

        with pytest.raises(ExportError, match="Keras cannot export the model: "):
            export_saved_model(keras.Sequential([keras.layers.Dense(1)]), "m", models_dir=models_dir)
        assert tree(models_dir) == []

    def test_rejects_an_input_name_with_a_space(self, models_dir):
        import keras

        image = keras.Input((2,), name="my image")
        with pytest.raises(ExportError, match="in the names of Input layers"):
            export_saved_model(keras.Model(image, keras.layers.Dense(1)(image)), "m", models_dir=models_dir)

    def test_rejects_a_file_of_weights(self, keras_model, models_dir, tmp_path):
        keras_model.save_weights(tmp_path / "model.weights.h5")
        with pytest.raises(ExportError, match="Keras cannot load"):
            export_saved_model(tmp_path / "model.weights.h5", "m", models_dir=models_dir)
        assert tree(models_dir) == []


class TestModules:
    def test_each_function_with_an_input_signature_becomes_a_signature(
        self, words_module, models_dir, call_signature
    ):
        path = export_saved_model(words_module, "words", models_dir=models_dir)
        assert set(read_saved_model(path)) == {"serving_default", "double"}
        outputs = call_signature(path, words=["cherry", "zebra"])
        assert outputs["ids"].tolist() == [2, -1]
        assert outputs["scaled"].tolist() == [20.0, -10.0]
        assert call_signature(path, "double", x=[4.0])["y"].tolist() == [8.0]

    def test_a_single_function_becomes_the_default_signature(self, models_dir, call_signature):
        import tensorflow as tf

        module = tf.Module()
        module.v = tf.Variable(3.0)
        module.triple = tf.function(
            lambda x: {"y": x * module.v}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
        )
        path = export_saved_model(module, "m", models_dir=models_dir)
        assert list(read_saved_model(path)) == ["serving_default"]
        assert call_signature(path, x=[2.0])["y"].tolist() == [6.0]

    def test_rejects_several_functions_without_a_default(self, models_dir):
        import tensorflow as tf

        spec = [tf.TensorSpec([None], tf.float32)]
        module = tf.Module()
        module.a = tf.function(lambda x: x, input_signature=spec)
        module.b = tf.function(lambda x: x, input_signature=spec)
        with pytest.raises(InvalidInputError, match=r"several functions with signatures \(a, b\)"):
            export_saved_model(module, "m", models_dir=models_dir)
        module.serving_default = module.a
        assert set(read_saved_model(export_saved_model(module, "m", models_dir=models_dir))) == {
            "a",
            "b",
            "serving_default",
        }

    def test_servers_restore_the_variables_of_keras_layers(self, models_dir, call_signature):
        import keras
        import tensorflow as tf

        layer = keras.layers.BatchNormalization()
        layer.build((None, 2))
        layer.moving_mean.assign([1.0, 2.0])

        class Module(tf.Module):
            def __init__(self):
                self.layer = layer
                self.factor = tf.Variable(3.0)
                self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [4.0]), 0.0)

            @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
            def __call__(self, x):
                return {"y": self.layer(x) * self.factor * self.table.lookup(tf.constant(["a"]))}

        version = export_saved_model(Module(), "m", models_dir=models_dir)
        outputs = call_signature(version, x=[[2.0, 2.0]])
        np.testing.assert_allclose(outputs["y"], [[12.0, 0.0]], rtol=1e-3, atol=1e-5)

    def test_rejects_a_module_without_signatures(self, models_dir):
        import tensorflow as tf

        with pytest.raises(InvalidInputError, match="input_signature"):
            export_saved_model(tf.Module(), "m", models_dir=models_dir)
        assert tree(models_dir) == []


class TestOperations:
    @pytest.mark.parametrize(
        ("function", "op"), [("py_function", "EagerPyFunc"), ("numpy_function", "PyFunc")]
    )
    def test_rejects_a_model_that_calls_python(self, models_dir, function, op):
        import tensorflow as tf

        call = getattr(tf, function)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def double(x):
            return {"y": tf.ensure_shape(call(lambda value: value * 2, [x], tf.float32), [None])}

        with pytest.raises(
            ExportError, match=rf"the model calls Python functions \({op}\), which exist only"
        ):
            export_saved_model(double, "m", models_dir=models_dir)
        assert tree(models_dir) == []

    def test_accepts_a_python_function_that_no_signature_calls(self, models_dir):
        import tensorflow as tf

        class Module(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
            def __call__(self, x):
                return {"y": x * 2}

            @tf.function
            def debug(self, x):
                return tf.py_function(lambda value: value, [x], tf.float32)

        module = Module()
        module.debug.get_concrete_function(tf.TensorSpec([None], tf.float32))
        export_saved_model(module, "m", models_dir=models_dir, warmup=1)

    @pytest.mark.parametrize("where", ["signature", "called function"])
    def test_names_the_flag_for_compiled_functions(self, models_dir, caplog, where):
        import tensorflow as tf

        @tf.function(jit_compile=True, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def compiled(x):
            return {"y": x * 2}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def plain(x):
            return {"y": compiled(x)["y"] + 1}

        export_saved_model(compiled if where == "signature" else plain, "m", models_dir=models_dir)
        assert "--xla_cpu_compilation_enabled=true" in caplog.text

    def test_is_silent_without_compiled_functions(self, words_module, models_dir, caplog):
        export_saved_model(words_module, "m", models_dir=models_dir)
        assert caplog.text == ""


class TestFunctions:
    def test_exports_a_function_with_a_variable(self, models_dir, call_signature):
        import tensorflow as tf

        factor = tf.Variable(5.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def times(x):
            return x * factor

        path = export_saved_model(times, "m", models_dir=models_dir, output_names={"output_0": "y"})
        assert call_signature(path, x=[2.0])["y"].tolist() == [10.0]

    def test_exports_a_concrete_function(self, models_dir, call_signature):
        import tensorflow as tf

        concrete = tf.function(lambda x: {"y": -x}).get_concrete_function(
            tf.TensorSpec([None], tf.float32, "x")
        )
        path = export_saved_model(concrete, "m", models_dir=models_dir)
        assert call_signature(path, x=[2.0])["y"].tolist() == [-2.0]

    def test_rejects_a_function_without_an_input_signature(self, models_dir):
        import tensorflow as tf

        with pytest.raises(InvalidInputError, match="get_concrete_function"):
            export_saved_model(tf.function(lambda x: x), "m", models_dir=models_dir)

    def test_rejects_a_function_that_cannot_be_traced(self, models_dir):
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec([2], tf.float32)])
        def wrong(x):
            return tf.matmul(x, x)

        with pytest.raises(ExportError, match="cannot trace the"):
            export_saved_model(wrong, "m", models_dir=models_dir)
        assert tree(models_dir) == []

    def test_exports_or_explains_an_untracked_table(self, models_dir):
        import tensorflow as tf

        def make_table():
            keys = tf.lookup.KeyValueTensorInitializer(["a"], tf.constant([1], tf.int64))
            return tf.lookup.StaticHashTable(keys, -1)

        table = make_table()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
        def find(x):
            return table.lookup(x)

        try:
            path = export_saved_model(find, "m", models_dir=models_dir)
        except ExportError as error:
            assert "attribute of a tf.Module" in str(error)  # noqa: PT017
        else:
            assert list(read_saved_model(path)) == ["serving_default"]

    @pytest.mark.parametrize("source", [42, None, lambda x: x, np.ones(2)])
    def test_rejects_objects_that_are_not_models(self, source, models_dir):
        with pytest.raises(InvalidInputError, match="cannot be exported; give a Keras 3 model"):
            export_saved_model(source, "m", models_dir=models_dir)
        assert tree(models_dir) == []


class TestSavedModels:
    def test_copies_a_saved_model_file_by_file(self, words_module, models_dir):
        first = export_saved_model(words_module, "words", models_dir=models_dir)
        (first / "assets.extra").mkdir()
        (first / "assets.extra" / "note.txt").write_text("kept")
        second = export_saved_model(first, "words", models_dir=models_dir)
        assert second.name == "2"
        assert tree(first) == tree(second)
        for name in tree(first):
            assert (first / name).is_dir() or (first / name).read_bytes() == (second / name).read_bytes()

    def test_renaming_preserves_signatures_assets_tables_and_variables(
        self, words_module, models_dir, call_signature
    ):
        first = export_saved_model(words_module, "words", models_dir=models_dir)
        (first / "assets.extra").mkdir()
        (first / "assets.extra" / "note.txt").write_text("kept")
        second = export_saved_model(
            first,
            "words",
            models_dir=models_dir,
            input_names={"words": "fruits"},
            output_names={"y": "doubled"},
        )
        assert names(second) == (["fruits"], ["ids", "scaled"])
        assert call_signature(second, fruits=["banana"])["scaled"].tolist() == [10.0]
        assert call_signature(second, "double", x=[4.0])["doubled"].tolist() == [8.0]
        assert (second / "assets" / "vocabulary.txt").read_text() == "apple\nbanana\ncherry\n"
        assert (second / "assets.extra" / "note.txt").read_text() == "kept"

    def test_copies_or_renames_a_tensorflow_1_model(self, tensorflow_1_model, models_dir, call_signature):
        first = export_saved_model(tensorflow_1_model, "half", models_dir=models_dir)
        assert tree(first) == tree(tensorflow_1_model)

        second = export_saved_model(
            tensorflow_1_model, "half", models_dir=models_dir, input_names={"x": "y"}, output_names={"y": "x"}
        )
        assert call_signature(second, y=[[4.0]])["x"].tolist() == [[4.0]]
        assert read_saved_model(second)["classify"].method_name == "tensorflow/serving/classify"

    @pytest.mark.parametrize("kind", ["tensorflow 1", "tensorflow 2"])
    def test_copies_or_renames_a_model_in_text_format(
        self, tensorflow_1_model, words_module, models_dir, tmp_path, call_signature, kind
    ):
        from google.protobuf import text_format
        from tensorflow.core.protobuf import saved_model_pb2

        source = tmp_path / "text"
        shutil.copytree(
            tensorflow_1_model
            if kind == "tensorflow 1"
            else export_saved_model(words_module, "words", models_dir=models_dir),
            source,
        )
        model = saved_model_pb2.SavedModel.FromString((source / "saved_model.pb").read_bytes())
        (source / "saved_model.pbtxt").write_text(text_format.MessageToString(model))
        (source / "saved_model.pb").unlink()

        copied = export_saved_model(source, "m", models_dir=models_dir)
        assert (copied / "saved_model.pbtxt").exists()
        assert not (copied / "saved_model.pb").exists()
        old, value = ("x", [[4.0]]) if kind == "tensorflow 1" else ("words", ["banana"])
        expected = call_signature(copied, **{old: value})
        renamed = export_saved_model(source, "m", models_dir=models_dir, input_names={old: "new"})
        outputs = call_signature(renamed, new=value)
        assert {name: array.tolist() for name, array in outputs.items()} == {
            name: array.tolist() for name, array in expected.items()
        }

    def test_skips_hidden_files_and_rejects_links_that_leave_the_source(
        self, tensorflow_1_model, models_dir, tmp_path, caplog
    ):
        source = tmp_path / "source"
        shutil.copytree(tensorflow_1_model, source)
        (source / ".git").mkdir()
        (source / ".env").write_text("TOKEN=x")
        copied = export_saved_model(source, "m", models_dir=models_dir)
        assert not list(copied.glob(".*"))
        assert f"hidden files of {source} are not copied: .env, .git" in caplog.text
        (tmp_path / "id_rsa").write_text("secret")
        (source / "assets.extra").mkdir()
        (source / "assets.extra" / "key").symlink_to("../../id_rsa")
        before = tree(models_dir)
        with pytest.raises(RepositoryError, match=r"key is a link to .*id_rsa, which is not in"):
            export_saved_model(source, "m", models_dir=models_dir)
        assert tree(models_dir) == before

    def test_rejects_image_bytes_for_a_tensorflow_1_model(self, tensorflow_1_model, models_dir):
        with pytest.raises(InvalidInputError, match="TensorFlow 1"):
            export_saved_model(tensorflow_1_model, "half", models_dir=models_dir, image_bytes=True)
        assert tree(models_dir) == []

    def test_renaming_preserves_methods_other_than_predict(self, words_module, models_dir, tmp_path):
        import tensorflow as tf

        path = export_saved_model(words_module, "words", models_dir=models_dir)
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(path))
        updater.replace_method_name("double", "tensorflow/serving/regress")
        (tmp_path / "updated").mkdir()
        updater.save(str(tmp_path / "updated"))
        # the updater writes saved_model.pb alone
        (path / "saved_model.pb").write_bytes((tmp_path / "updated" / "saved_model.pb").read_bytes())

        renamed = export_saved_model(path, "words", models_dir=models_dir, input_names={"words": "fruits"})
        methods = {name: signature.method_name for name, signature in read_saved_model(renamed).items()}
        assert methods == {
            "double": "tensorflow/serving/regress",
            "serving_default": "tensorflow/serving/predict",
        }

    def test_rejects_an_unknown_name_and_lists_the_known_ones(self, words_module, models_dir):
        with pytest.raises(InvalidInputError, match="has no input 'image'; its inputs are: words, x"):
            export_saved_model(words_module, "words", models_dir=models_dir, input_names={"image": "a"})
        assert tree(models_dir) == []

    def test_rejects_a_damaged_saved_model(self, models_dir, tmp_path):
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "saved_model.pb").write_bytes(b"garbage")
        with pytest.raises(RepositoryError, match="is not a valid SavedModel"):
            export_saved_model(tmp_path / "broken", "m", models_dir=models_dir)
        assert tree(models_dir) == []

    def test_rejects_a_saved_model_that_contains_the_destination(self, tensorflow_1_model, models_dir):
        shutil.copytree(tensorflow_1_model, models_dir / "half")
        before = tree(models_dir)
        with pytest.raises(InvalidInputError, match="move it first"):
            export_saved_model(models_dir / "half", "half", models_dir=models_dir)
        assert tree(models_dir) == before

    def test_suggests_a_version_if_the_source_is_a_directory_of_versions(self, models_dir):
        for version in (9, 10):
            (models_dir / "m" / str(version)).mkdir(parents=True)
            (models_dir / "m" / str(version) / "saved_model.pb").touch()
        with pytest.raises(InvalidInputError, match=r"did you mean .*/m/10"):
            export_saved_model(models_dir / "m", "other", models_dir=models_dir)


def test_signatures_match_saved_model_cli(words_module, models_dir):
    path = export_saved_model(
        words_module,
        "words",
        models_dir=models_dir,
        input_names={"words": "fruits"},
        output_names={"ids": "numbers"},
    )
    shown = subprocess.run(
        [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--dir", path, "--all"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    ).stdout
    theirs, ours = [], []
    for part in re.split(r"(?=signature_def\[')", shown)[1:]:
        name = part.split("'")[1]
        for kind, alias, dtype, shape, tensor in re.findall(
            r"(inputs|outputs)\['(\w+)'\] tensor_info:\s+dtype: (\w+)\s+shape: (.*)\s+name: (.*)", part
        ):
            theirs.append((name, kind, alias, dtype, shape, tensor))
    for name, signature in read_saved_model(path).items():
        for kind, infos in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            ours += [(name, kind, i.name, i.dtype.name, i.shape_text, i.tensor_name) for i in infos.values()]
    assert ours == [line for line in theirs if line[0] != "__saved_model_init_op"]
    assert ours[0][:3] == ("double", "inputs", "x")


class TestVersions:
    def test_takes_the_next_version_by_default(self, tensorflow_1_model, models_dir):
        assert export_saved_model(tensorflow_1_model, "m", models_dir=models_dir).name == "1"
        assert export_saved_model(tensorflow_1_model, "m", models_dir=models_dir, version=9).name == "9"
        assert export_saved_model(tensorflow_1_model, "m", models_dir=models_dir).name == "10"

    def test_never_overwrites_a_version(self, tensorflow_1_model, models_dir):
        path = export_saved_model(tensorflow_1_model, "m", models_dir=models_dir, version=3)
        before = {name: os.stat(path / name).st_mtime_ns for name in tree(path)}
        with pytest.raises(RepositoryError, match="the next is 4"):
            export_saved_model(tensorflow_1_model, "m", models_dir=models_dir, version=3)
        assert {name: os.stat(path / name).st_mtime_ns for name in tree(path)} == before
        assert [child.name for child in path.parent.iterdir()] == ["3"]

    def test_never_overwrites_a_version_that_appears_during_the_export(
        self, tensorflow_1_model, models_dir, monkeypatch
    ):
        original = sources.write

        def write_slowly(source, directory):
            original(source, directory)
            (models_dir / "m" / "3").mkdir()

        monkeypatch.setattr(sources, "write", write_slowly)
        with pytest.raises(RepositoryError, match="never overwritten"):
            export_saved_model(tensorflow_1_model, "m", models_dir=models_dir, version=3)
        assert tree(models_dir / "m") == ["3"]

    @pytest.mark.parametrize("version", [-1, 2**63])
    def test_rejects_a_version_out_of_range(self, tensorflow_1_model, models_dir, version):
        with pytest.raises(InvalidInputError, match="out of range"):
            export_saved_model(tensorflow_1_model, "m", models_dir=models_dir, version=version)
        assert not models_dir.exists()

    @pytest.mark.parametrize(
        "name", ["", "a b", "../up", "a/b", ".hidden", "quote'", 'quote"', "a;b", "-x", "ä"]
    )
    def test_rejects_an_invalid_name(self, tensorflow_1_model, tmp_path, name):
        with pytest.raises(InvalidInputError, match="is not a valid model name"):
            export_saved_model(tensorflow_1_model, name, models_dir=tmp_path / "models")
        assert not list(tmp_path.iterdir())

    def test_everyone_can_read_the_version_also_with_a_strict_umask(self, words_module, models_dir):
        old = os.umask(0o077)
        try:
            path = export_saved_model(words_module, "words", models_dir=models_dir, warmup=1)
        finally:
            os.umask(old)
        for entry in (models_dir, models_dir / "words", path, *path.rglob("*")):
            wanted = 0o555 if entry.is_dir() else 0o444
            assert entry.stat().st_mode & wanted == wanted, entry

    @pytest.mark.parametrize("where", ["write", "rewrite", "replay", "publish"])
    def test_an_interrupt_leaves_nothing_behind(self, words_module, models_dir, monkeypatch, where):
        from tfserving.export import exporter

        owner, name = {
            "write": (sources, "write"),
            "rewrite": (exporter, "rewrite"),
            "replay": (exporter, "run_in_fresh_process"),
            "publish": (versions, "publish"),
        }[where]
        original = getattr(owner, name)

        def interrupted(*args, **kwargs):
            if where != "publish":
                original(*args, **kwargs)
            raise KeyboardInterrupt

        monkeypatch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_saved_model(
                words_module,
                "words",
                models_dir=models_dir,
                input_names={"words": "fruits"},
                warmup_data={"x": [1.0]},
            )
        assert tree(models_dir) == []


class TestWarmup:
    def test_generates_requests_from_the_signatures(self, keras_model, models_dir):
        path = export_saved_model(keras_model, "m", models_dir=models_dir, warmup=2)
        requests = [log.predict_log.request for log in read_warmup(path)]
        assert [(request.model_spec.name, request.model_spec.signature_name) for request in requests] == [
            ("m", "serve"),
            ("m", "serve"),
            ("m", "serving_default"),
            ("m", "serving_default"),
        ]

    def test_takes_samples_by_new_names(self, keras_model, models_dir):
        path = export_saved_model(
            keras_model,
            "m",
            models_dir=models_dir,
            input_names={"pixels": "image"},
            warmup_data={"image": PIXELS},
        )
        (log,) = read_warmup(path)
        assert list(log.predict_log.request.inputs) == ["image"]

    def test_takes_samples_from_a_file(self, words_module, models_dir, tmp_path):
        np.savez(tmp_path / "samples.npz", words=np.array(["apple", "banana"]))
        path = export_saved_model(
            words_module, "m", models_dir=models_dir, warmup_data=tmp_path / "samples.npz"
        )
        values = [list(log.predict_log.request.inputs["words"].string_val) for log in read_warmup(path)]
        assert values == [[b"apple"], [b"banana"]]

    def test_logs_signatures_without_requests(self, words_module, models_dir, caplog):
        path = export_saved_model(words_module, "m", models_dir=models_dir, warmup=1)
        (log,) = read_warmup(path)
        assert log.predict_log.request.model_spec.signature_name == "double"
        assert "'serving_default'" in caplog.text

    def test_sparse_signatures_do_not_prevent_warmup_of_others(self, models_dir, caplog):
        import tensorflow as tf

        class Module(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
            def __call__(self, x):
                return {"y": x * 2}

            @tf.function(input_signature=[tf.SparseTensorSpec([None, 3], tf.float32)])
            def sparse(self, s):
                return {"y": tf.sparse.to_dense(s)}

        path = export_saved_model(Module(), "m", models_dir=models_dir, warmup=1)
        (log,) = read_warmup(path)
        assert log.predict_log.request.model_spec.signature_name == "serving_default"
        assert "signature 'sparse' gets no warmup records: zeros fail: " in caplog.text

    def test_replays_in_another_process(self, words_module, models_dir, monkeypatch):
        import tensorflow as tf

        def session(*args, **kwargs):
            raise AssertionError("a session in the exporting process")

        monkeypatch.setattr(tf.compat.v1, "Session", session)
        export_saved_model(words_module, "m", models_dir=models_dir, warmup=1)

    def test_reports_a_process_that_crashes(self, words_module, models_dir, tmp_path, monkeypatch):
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\necho 'no memory left' >&2\nexit 137\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        with pytest.raises(ExportError, match="exited with status 137: no memory left"):
            export_saved_model(words_module, "m", models_dir=models_dir, warmup=1)
        assert tree(models_dir) == []

    def test_does_not_publish_if_a_request_fails(self, models_dir):
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def picky(x):
            with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), ["x must be positive"])]):
                return {"y": tf.sqrt(x)}

        with pytest.raises(ExportError, match=r"warmup record 1 .*x must be positive.*--warmup-data"):
            export_saved_model(picky, "m", models_dir=models_dir, warmup=1)
        assert tree(models_dir) == []
        export_saved_model(picky, "m", models_dir=models_dir, warmup_data={"x": [1.0]})

    def test_does_not_publish_if_a_copied_request_fails(self, keras_model, models_dir, tmp_path):
        from tfserving.wire.model_spec import ModelSpec
        from tfserving.wire.predict import encode_request

        path = export_saved_model(keras_model, "m", models_dir=models_dir)
        write_warmup(path, [encode_request(ModelSpec("m"), {"old_name": PIXELS})])
        with pytest.raises(ExportError, match=r"warmup record 1 .*has inputs old_name, the signature pixels"):
            export_saved_model(path, "copy", models_dir=models_dir)
        warmup_file(path).write_bytes(b"garbage")
        with pytest.raises(Exception, match="truncated"):
            export_saved_model(path, "copy", models_dir=models_dir)
        assert not (models_dir / "copy").exists()

    def test_removes_copied_requests_that_use_old_names(self, keras_model, models_dir, caplog):
        path = export_saved_model(keras_model, "m", models_dir=models_dir, warmup=1)
        renamed = export_saved_model(path, "m", models_dir=models_dir, input_names={"pixels": "image"})
        assert not (renamed / "assets.extra").exists()
        assert "are removed" in caplog.text

        outputs_alone = export_saved_model(path, "m", models_dir=models_dir, output_names={"output_0": "a"})
        assert len(list(read_warmup(outputs_alone))) == 2

    def test_rejects_warmup_with_warmup_data(self, models_dir):
        with pytest.raises(InvalidInputError, match="are mutually exclusive"):
            export_saved_model("x.keras", "m", models_dir=models_dir, warmup=1, warmup_data={"x": [1]})
        with pytest.raises(InvalidInputError, match="warmup must be 0 or more, not -1"):
            export_saved_model("x.keras", "m", models_dir=models_dir, warmup=-1)
