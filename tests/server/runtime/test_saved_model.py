"""SavedModels in TensorFlow sessions."""

import importlib.util
from unittest import mock

import numpy as np
import pytest

from tfserving.errors import NotFoundError, TfServingError
from tfserving.repository.tfrecord import write_records
from tfserving.repository.warmup_records import warmup_file
from tfserving.server.core.servable import NotKnownFastError
from tfserving.server.observability.prometheus_text import Registry
from tfserving.server.observability.runtime_metrics import RuntimeMetrics
from tfserving.server.request_context import RequestContext
from tfserving.server.runtime import op_libraries
from tfserving.wire import messages, predict
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def servable(tmp_path_factory):
    """A version with several inputs and outputs."""
    import tensorflow as tf

    from tfserving.server.runtime.saved_model import load
    from tfserving.server.server_options import RuntimeOptions

    path = tmp_path_factory.mktemp("model") / "1"
    module = tf.Module()
    module.f = tf.function(
        lambda a, b: {"difference": a - b, "minuend": a, "subtrahend": b},
        input_signature=[tf.TensorSpec([None], name=name) for name in "ab"],
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})
    loaded = load("m", 1, path, options=RuntimeOptions())
    yield loaded
    loaded.close()


def test_loads_a_model_in_text_format(tmp_path):
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    from tfserving.server.runtime.saved_model import load
    from tfserving.server.server_options import RuntimeOptions

    module = tf.Module()
    module.f = tf.function(lambda a: {"b": a + 1}, input_signature=[tf.TensorSpec([None], name="a")])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.f})
    model = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    (tmp_path / "saved_model.pbtxt").write_text(text_format.MessageToString(model))
    (tmp_path / "saved_model.pb").unlink()
    loaded = load("m", 1, tmp_path, options=RuntimeOptions())
    inputs = {"a": np.array([5.0], np.float32)}
    response = loaded.submit(RequestContext(), loaded.signatures["serving_default"], inputs, ("b",)).result()
    assert response["b"].tolist() == [6.0]
    loaded.close()


def test_one_callable_serves_inputs_and_outputs_in_any_order(servable):
    import tensorflow as tf

    signature = servable.signatures["serving_default"]
    a, b = np.array([5.0], np.float32), np.array([3.0], np.float32)
    orders = [
        ({"a": a, "b": b}, ("difference", "minuend", "subtrahend")),
        ({"b": b, "a": a}, ("difference", "minuend", "subtrahend")),
        ({"b": b, "a": a}, ("subtrahend", "difference", "minuend")),
        ({"a": a, "b": b}, ("minuend", "difference", "subtrahend")),
    ]
    session = tf.compat.v1.Session
    make = session._make_callable_from_options
    with mock.patch.object(session, "_make_callable_from_options", autospec=True, side_effect=make) as made:
        for inputs, outputs in orders:
            response = servable.submit(RequestContext(), signature, inputs, outputs).result()
            assert {name: array.tolist() for name, array in response.items()} == {
                "difference": [2.0],
                "minuend": [5.0],
                "subtrahend": [3.0],
            }
            assert tuple(response) == outputs
    assert made.call_count == 1


def test_runs_in_the_event_loop_only_what_was_fast(servable, monkeypatch):
    from tfserving.server.runtime import saved_model

    signature = servable.signatures["serving_default"]
    in_event_loop = RequestContext()
    in_event_loop.in_event_loop = True

    def submit(rows, context=in_event_loop, outputs=("difference",)):
        inputs = {name: np.ones(rows, np.float32) for name in "ab"}
        return servable.submit(context, signature, inputs, outputs).result()

    monkeypatch.setattr(saved_model, "FAST_SECONDS", 60.0)
    for _ in range(4):
        with pytest.raises(NotKnownFastError):
            submit(17)
        submit(17, RequestContext())
    assert submit(17)["difference"].tolist() == [0.0] * 17
    for rows, outputs in ((18, ("difference",)), (17, ("minuend",))):
        with pytest.raises(NotKnownFastError):
            submit(rows, outputs=outputs)
    monkeypatch.setattr(saved_model, "FAST_SECONDS", 0.0)
    with pytest.raises(NotKnownFastError):
        submit(17)


def test_denormal_results_are_zero_and_the_thread_keeps_its_mode(servable):
    signature = servable.signatures["serving_default"]
    tiny, smallest = np.array([1.5e-38], np.float32), np.array([1.25e-38], np.float32)
    response = servable.submit(RequestContext(), signature, {"a": tiny, "b": smallest}, ("difference",))
    assert response.result()["difference"].tolist() == [0.0]
    assert (tiny - smallest).tolist() != [0.0]


def test_runs_quantized_inputs_and_outputs(tmp_path):
    import tensorflow as tf

    def requantize(x):
        low, high = tf.constant(-1.0), tf.constant(1.0)
        values = tf.raw_ops.Dequantize(input=x, min_range=low, max_range=high)
        again = tf.raw_ops.QuantizeV2(input=-values, min_range=low, max_range=high, T=tf.qint8)
        return {"y": again.output, "z": values}

    module = tf.Module()
    module.f = tf.function(requantize, input_signature=[tf.TensorSpec([None], tf.qint8, name="x")])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.f})
    servable = load_plain(tmp_path / "1")
    signature = servable.signatures["serving_default"]
    assert signature.inputs["x"].dtype is signature.outputs["y"].dtype is DType.DT_QINT8
    inputs = {"x": np.array([0, 64], np.int8).view(DType.DT_QINT8.numpy)}
    outputs = servable.submit(RequestContext(), signature, inputs, ("y", "z")).result()
    assert outputs["y"].dtype == DType.DT_QINT8.numpy
    assert outputs["y"].view(np.int8).tolist() == np.round(outputs["z"] * -127.5 - 0.5).tolist()
    servable.close()


def test_an_output_with_a_reference_dtype_has_the_values_of_the_variable(tmp_path):
    import tensorflow as tf

    path = tmp_path / "1"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None])
        variable = tf.compat.v1.get_variable("v", initializer=[1.0, 2.0], use_resource=False)
        session.run(variable.initializer)
        builder = tf.compat.v1.saved_model.Builder(str(path))
        info = tf.compat.v1.saved_model.build_tensor_info
        signature = tf.compat.v1.saved_model.build_signature_def(
            {"x": info(x)}, {"y": info(variable)}, "tensorflow/serving/predict"
        )
        assert signature.outputs["y"].dtype == DType.DT_FLOAT + 100
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    servable = load_plain(path)
    assert servable.signatures["serving_default"].outputs["y"].dtype is DType.DT_FLOAT
    assert submit(servable, "serving_default")["y"].tolist() == [1.0, 2.0]
    servable.close()


@pytest.fixture
def with_unknown_op(tmp_path):
    """Writes a version whose signature "bad" has an op of some name; returns its directory."""

    def write(name, *, in_function=True):
        import tensorflow as tf
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        path = tmp_path / "1"
        if in_function:
            module = tf.Module()
            spec = [tf.TensorSpec([None], name="x")]
            module.good = tf.function(lambda x: {"y": x * 2.0}, input_signature=spec)
            module.bad = tf.function(lambda x: {"y": tf.math.erf(x)}, input_signature=spec)
            tf.saved_model.save(module, str(path), signatures={"good": module.good, "bad": module.bad})
        else:
            with tf.Graph().as_default(), tf.compat.v1.Session() as session:
                x = tf.compat.v1.placeholder(tf.float32, [None])
                tf.compat.v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": tf.math.erf(x)})
        model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
        graph = model.meta_graphs[0].graph_def
        for function in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in function:
                if node.op == "Erf":
                    node.op = name
        (path / "saved_model.pb").write_bytes(model.SerializeToString())
        return path

    return write


def load_plain(path):
    from tfserving.server.runtime.saved_model import load
    from tfserving.server.server_options import RuntimeOptions

    return load("m", 1, path, options=RuntimeOptions())


def submit(servable, name):
    inputs = {"x": np.array([1.0], np.float32)}
    return servable.submit(RequestContext(), servable.signatures[name], inputs, ("y",)).result()


def test_only_signatures_with_a_missing_op_fail(with_unknown_op, caplog):
    servable = load_plain(with_unknown_op("NoSuchOp"))
    assert submit(servable, "good")["y"].tolist() == [2.0]
    with pytest.raises(NotFoundError, match="op 'NoSuchOp' is not in TensorFlow nor in a package") as caught:
        submit(servable, "bad")
    assert caught.value.code == "NOT_FOUND"
    servable.close()
    assert "some signatures may fail: op 'NoSuchOp'" in caplog.text


def test_a_missing_op_outside_functions_fails_the_load(with_unknown_op):
    with pytest.raises(NotFoundError, match="op 'NoSuchOp' is not in TensorFlow nor in a package"):
        load_plain(with_unknown_op("NoSuchOp", in_function=False))


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("TFText>NoSuchOp", "'TFText>NoSuchOp' is in the package tensorflow-text, which is not installed"),
        (
            "SimpleMLNoSuchOp",
            "'SimpleMLNoSuchOp' is in the package tensorflow-decision-forests, which is not",
        ),
        (
            "Addons>NoSuchOp",
            "package tensorflow-addons, which no server has, not even tensorflow_model_server",
        ),
    ],
)
def test_the_error_for_a_missing_op_names_its_package(with_unknown_op, op, message):
    with mock.patch.object(importlib.util, "find_spec", return_value=None):
        servable = load_plain(with_unknown_op(op))
    with pytest.raises(NotFoundError, match=message):
        submit(servable, "bad")
    servable.close()


def test_the_error_for_a_missing_op_reports_a_package_that_cannot_be_loaded(
    with_unknown_op, tmp_path, monkeypatch
):
    package = tmp_path / "tensorflow_text" / "python" / "ops"
    package.mkdir(parents=True)
    (tmp_path / "tensorflow_text" / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "_broken.so").write_bytes(b"not a library")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(op_libraries, "_load_errors", {})
    servable = load_plain(with_unknown_op("TFText>NoSuchOp"))
    with pytest.raises(NotFoundError, match=r"tensorflow-text, which cannot be loaded: .*_broken\.so"):
        submit(servable, "bad")
    servable.close()


def test_ops_of_tf_text_are_loaded():
    if importlib.util.find_spec("tensorflow_text") is None:
        pytest.skip("tensorflow-text is not installed")
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph_def = GraphDef()
    graph_def.node.add(name="n", op="TFText>WhitespaceTokenizeWithOffsetsV2")
    assert op_libraries.load_libraries_for(graph_def) == set()


@pytest.fixture
def from_examples(tmp_path):
    """The directory of a version whose signature takes tf.Examples."""
    import tensorflow as tf

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(inputs):
        features = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        return {"outputs": features["x"] * 2.0}

    module.regress = regress
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": regress, "also": regress})
    return tmp_path / "1"


def log(kind, *names):
    """A warmup record of some kind for signatures, with one example."""
    record = messages.PredictionLog()
    requested = getattr(record, kind).request
    features = requested.input.example_list.examples.add().features
    features.feature["x"].float_list.value.append(1.0)
    for name in names:
        spec = requested.tasks.add().model_spec if kind == "multi_inference_log" else requested.model_spec
        spec.signature_name = name
    return record.SerializeToString()


X = np.array([b""], object)


def predict_log(inputs, *outputs):
    record = messages.PredictionLog()
    requested = record.predict_log.request
    requested.ParseFromString(predict.encode_request(ModelSpec("m"), inputs, outputs))
    return record.SerializeToString()


def warmed_up(path, *records):
    from tfserving.server.runtime.saved_model import load
    from tfserving.server.server_options import RuntimeOptions

    (path / "assets.extra").mkdir(exist_ok=True)
    write_records(warmup_file(path), records)
    runs = []
    metrics = RuntimeMetrics(Registry())
    with mock.patch.object(metrics, "count_graph_run", runs.append):
        load("m", 1, path, options=RuntimeOptions(), metrics=metrics).close()
    return len(runs)


def test_warmup_records_of_every_kind_run(from_examples):
    assert warmed_up(from_examples, log("classify_log"), log("regress_log", "also")) == 2
    assert warmed_up(from_examples, log("multi_inference_log", "serving_default", "also")) == 2


def test_a_warmup_record_without_a_log_passes(from_examples):
    assert warmed_up(from_examples, b"", log("regress_log")) == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (log("regress_log", "no such"), "no such', which the model"),
        (
            messages.PredictionLog(session_run_log={}).SerializeToString(),
            "a session_run_log, expected a predict, classify",
        ),
        (
            messages.PredictionLog(predict_streamed_log={}).SerializeToString(),
            "a predict_streamed_log, expected a predict, classify",
        ),
        (predict_log({"inputs": X}, "no such"), "returns 'outputs', not 'no such'"),
        (predict_log({"inputs": X}, "outputs", "outputs"), "more than once: 'outputs'"),
        (predict_log({}), "missing: 'inputs'"),
    ],
)
def test_an_invalid_warmup_record_fails_the_load(from_examples, record, message):
    with pytest.raises(TfServingError, match=message):
        warmed_up(from_examples, log("regress_log"), record)
