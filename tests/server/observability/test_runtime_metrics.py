"""Metrics of loading, warming up and running a SavedModel."""

import numpy as np
import pytest

from tfserving.errors import TfServingError
from tfserving.repository.warmup_records import write_warmup
from tfserving.server.observability.prometheus_text import Registry
from tfserving.server.observability.runtime_metrics import RuntimeMetrics
from tfserving.server.request_context import RequestContext
from tfserving.wire import predict
from tfserving.wire.model_spec import ModelSpec

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def version(tmp_path):
    """A version whose model doubles its input."""
    import tensorflow as tf

    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None], name="x")])
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.double})
    return tmp_path / "1"


class Counted:
    """A registry and its values."""

    def __init__(self):
        self.registry = Registry()
        self.metrics = RuntimeMetrics(self.registry)

    def value(self, start):
        (line,) = [line for line in self.registry.text().decode().splitlines() if line.startswith(start)]
        return float(line.rpartition(" ")[2])


def load(version, counted):
    from tfserving.server.runtime.saved_model import load as load_saved_model
    from tfserving.server.server_options import RuntimeOptions

    return load_saved_model("m", 1, version, options=RuntimeOptions(), metrics=counted.metrics)


def test_load_warmup_and_runs_are_counted(version):
    request = predict.encode_request(ModelSpec("m"), {"x": np.ones(2, np.float32)})
    write_warmup(version, [request, request])
    counted = Counted()
    servable = load(version, counted)
    path = f'model_path="{version}"'
    assert counted.value(f':tensorflow:cc:saved_model:load_attempt_count{{{path},status="success"}}') == 1
    assert counted.value(f":tensorflow:cc:saved_model:load_latency{{{path}}}") > 0
    assert counted.value(f':tensorflow:serving:model_warmup_latency_count{{{path},status="OK"}}') == 1
    assert counted.value(f":tensorflow:serving:model_warmup_records_read{{{path}}}") == 2
    assert counted.value(":tensorflow:core:graph_runs{}") == 2
    inputs = {"x": np.ones(3, np.float32)}
    servable.submit(RequestContext(), servable.signatures["serving_default"], inputs, ["y"]).result()
    assert counted.value(":tensorflow:core:graph_runs{}") == 3
    assert counted.value(":tensorflow:core:graph_run_time_usecs{}") > 0
    servable.close()


def test_a_failed_load_is_counted(version):
    (version / "saved_model.pb").write_bytes(b"\xff")
    counted = Counted()
    with pytest.raises(TfServingError):
        load(version, counted)
    path = f'model_path="{version}"'
    assert counted.value(f':tensorflow:cc:saved_model:load_attempt_count{{{path},status="fail"}}') == 1
    assert b"load_latency{" not in counted.registry.text()
