"""Graphs that go to a session as bytes: variables, assets, tables, and how they fail."""

import gc

import numpy as np
import pytest

from tfserving.errors import TfServingError
from tfserving.server.request_context import RequestContext

pytestmark = pytest.mark.tensorflow


def load_version(path):
    from tfserving.server.runtime.saved_model import load
    from tfserving.server.server_options import RuntimeOptions

    return load("m", 1, path, options=RuntimeOptions())


def look_up(servable, *words):
    inputs = {"x": np.array(words, object)}
    signature = servable.signatures["serving_default"]
    return servable.submit(RequestContext(), signature, inputs, ("y",)).result()["y"].tolist()


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text("zero\none\n")
    return str(path)


def make_table(vocabulary):
    import tensorflow as tf

    index = tf.lookup.TextFileIndex
    initializer = tf.lookup.TextFileInitializer(
        vocabulary, tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
    )
    return initializer, tf.lookup.StaticHashTable(initializer, -1)


@pytest.fixture
def moved_version(tmp_path, vocabulary):
    """A version of TensorFlow 2 with a variable, a table and an asset, moved after its export."""
    import tensorflow as tf

    module = tf.Module()
    module.asset = tf.saved_model.Asset(vocabulary)
    module.initializer, module.table = make_table(module.asset)
    module.offset = tf.Variable(10, dtype=tf.int64)
    module.f = tf.function(
        lambda x: {"y": module.table.lookup(x) + module.offset},
        input_signature=[tf.TensorSpec([None], tf.string, name="x")],
    )
    tf.saved_model.save(module, str(tmp_path / "export"), signatures={"serving_default": module.f})
    (tmp_path / "vocabulary.txt").unlink()
    return (tmp_path / "export").rename(tmp_path / "1")


def test_restores_variables_and_initializes_tables_from_assets(moved_version):
    servable = load_version(moved_version)
    assert look_up(servable, "one", "zero", "other") == [11, 10, 9]
    servable.close()


def test_initializes_tables_of_tensorflow_1(tmp_path, vocabulary):
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.string, [None], name="x")
        asset = tf.constant(vocabulary)
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
        _, table = make_table(asset)
        offset = v1.get_variable("offset", initializer=tf.constant(10, tf.int64), use_resource=False)
        y = table.lookup(x) + offset
        session.run([offset.initializer, v1.tables_initializer()])
        v1.saved_model.simple_save(
            session, str(tmp_path / "1"), {"x": x}, {"y": y}, legacy_init_op=v1.tables_initializer()
        )
    (tmp_path / "vocabulary.txt").unlink()
    servable = load_version(tmp_path / "1")
    assert look_up(servable, "one", "other") == [11, 9]
    servable.close()


def test_a_version_without_its_variables_is_not_found(moved_version):
    for file in (moved_version / "variables").iterdir():
        file.unlink()
    with pytest.raises(TfServingError, match="variables") as caught:
        load_version(moved_version)
    assert caught.value.code == "NOT_FOUND"


def test_an_invalid_graph_fails_the_load(moved_version):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString((moved_version / "saved_model.pb").read_bytes())
    model.meta_graphs[0].graph_def.node[0].input.append("no_such_node")
    (moved_version / "saved_model.pb").write_bytes(model.SerializeToString())
    with pytest.raises(TfServingError, match="no_such_node") as caught:
        load_version(moved_version)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_close_frees_the_session_without_the_garbage_collector(moved_version):
    import tensorflow as tf

    def count_sessions():
        return sum(isinstance(found, tf.compat.v1.Session) for found in gc.get_objects())

    gc.disable()
    try:
        before = count_sessions()
        servable = load_version(moved_version)
        look_up(servable, "one")
        assert count_sessions() == before + 1
        servable.close()
        assert count_sessions() == before
    finally:
        gc.enable()
