"""A real SavedModel in a session."""

from unittest import mock

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def servable(tmp_path_factory):
    """A version with several inputs and outputs."""
    import tensorflow as tf

    from tfserving.server.saved_model import RuntimeOptions, load

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


def test_the_order_of_inputs_and_outputs_does_not_matter_and_costs_nothing(servable):
    signature = servable.signatures["serving_default"]
    a, b = np.array([5.0], np.float32), np.array([3.0], np.float32)
    orders = [
        ({"a": a, "b": b}, ("difference", "minuend", "subtrahend")),
        ({"b": b, "a": a}, ("difference", "minuend", "subtrahend")),
        ({"b": b, "a": a}, ("subtrahend", "difference", "minuend")),
        ({"a": a, "b": b}, ("minuend", "difference", "subtrahend")),
    ]
    make = servable._session._make_callable_from_options
    with mock.patch.object(servable._session, "_make_callable_from_options", side_effect=make) as made:
        for inputs, outputs in orders:
            answer = servable.run(signature, inputs, outputs)
            assert {name: array.tolist() for name, array in answer.items()} == {
                "difference": [2.0],
                "minuend": [5.0],
                "subtrahend": [3.0],
            }
            assert tuple(answer) == outputs
    assert made.call_count == 1
