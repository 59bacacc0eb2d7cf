"""SavedModels in TensorFlow sessions."""

from unittest import mock

import numpy as np
import pytest

from tfserving.errors import TfServingError
from tfserving.repository.tfrecord import write_records
from tfserving.repository.warmup_records import warmup_file
from tfserving.server.observability.prometheus_text import Registry
from tfserving.server.observability.runtime_metrics import RuntimeMetrics
from tfserving.server.request_context import RequestContext
from tfserving.wire import messages

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


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (log("regress_log", "no such"), "no such', which the model"),
        (b"", "no predict, classify, regress or multi-inference log"),
    ],
)
def test_an_invalid_warmup_record_fails_the_load(from_examples, record, message):
    with pytest.raises(TfServingError, match=message):
        warmed_up(from_examples, log("regress_log"), record)
