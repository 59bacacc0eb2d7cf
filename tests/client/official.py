"""Compares our messages with TensorFlow's, in a process that imports TensorFlow; raises where they differ.

python -m tests.client.official before|after ADDRESS   TensorFlow imported before or after the client
python -m tests.client.official codec                  every dtype, both ways, against tensorflow_serving.apis
python -m tests.client.official descriptors            names, numbers and types of all fields
"""

from __future__ import annotations

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def live_together(order: str, address: str) -> None:
    """Use both in one process: make and parse messages of both, and call a server."""
    if order == "before":
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        from tf_rpc_client import TfRpcClient
    else:
        from tf_rpc_client import TfRpcClient

        with TfRpcClient(address, "half") as client:
            client.infer([1])
        assert "tensorflow" not in sys.modules
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

    from tfserving.wire import messages

    with TfRpcClient(address, "half") as client:
        assert client.infer([1])["y"].tolist() == [2.5]
        assert client.infer(tf.constant([1.0]))["y"].tolist() == [2.5]
    ours = messages.PredictRequest(model_spec={"name": "m"})
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()).model_spec.name == "m"
    assert messages.PredictRequest.DESCRIPTOR.file.pool is not predict_pb2.PredictRequest.DESCRIPTOR.file.pool


def compare_codec() -> None:
    """Arrays written by one side and read by the other are equal; also with TensorFlow's C++ code."""
    import numpy as np
    import tensorflow as tf
    from hypothesis import given, settings
    from hypothesis import strategies as st
    from tensorflow_serving.apis import predict_pb2

    from tests.wire.arrays import ARRAYS, as_received, same
    from tfserving.wire import predict, tensors
    from tfserving.wire.model_spec import ModelSpec

    many = settings(max_examples=400, deadline=None)
    named = st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3)

    def equal(one: np.ndarray, other: np.ndarray) -> bool:
        if isinstance(one, bytes):  # TensorFlow returns bytes for a string without dimensions
            one = np.array(one, object)
        if other.dtype.names:  # TensorFlow's tensors return quantized values as plain integers
            one = np.asarray(one).view(other.dtype)
        return same(np.asarray(one), np.asarray(other))

    @many
    @given(named, st.lists(st.text(max_size=5), max_size=2))
    def our_requests(inputs, outputs):
        spec = ModelSpec("m\u00e4", 3, None, "sig")
        message = predict_pb2.PredictRequest.FromString(predict.encode_request(spec, inputs, outputs))
        assert (message.model_spec.name, message.model_spec.version.value) == ("m\u00e4", 3)
        assert message.model_spec.signature_name == "sig"
        assert list(message.output_filter) == outputs
        assert message.inputs.keys() == inputs.keys()
        for name, array in inputs.items():
            assert equal(tf.make_ndarray(message.inputs[name]), as_received(array)), name

    @many
    @given(named, st.booleans())
    def our_responses(outputs, content):
        data = predict.encode_response(ModelSpec("m", 3), outputs, tensor_content=content)
        message = predict_pb2.PredictResponse.FromString(data)
        assert message.model_spec.version.value == 3
        for name, array in outputs.items():
            proto = message.outputs[name]
            assert equal(tf.make_ndarray(proto), as_received(array)), name
            parsed = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))
            assert equal(parsed.numpy(), as_received(array)), name

    @many
    @given(named)
    def their_messages(arrays):
        response = predict_pb2.PredictResponse()
        response.model_spec.name = "m"
        response.model_spec.version_label = "stable"
        request = predict_pb2.PredictRequest(model_spec=response.model_spec, output_filter=["a"])
        for name, array in arrays.items():
            proto = tf.make_tensor_proto(as_received(array), shape=array.shape)
            response.outputs[name].CopyFrom(proto)
            request.inputs[name].CopyFrom(proto)
        spec, outputs = predict.decode_response(response.SerializeToString())
        call = predict.decode_request(request.SerializeToString())
        assert spec == call.spec == ModelSpec("m", None, "stable")
        assert call.outputs == ("a",)
        assert outputs.keys() == call.read().keys() == arrays.keys()
        for name, array in arrays.items():
            assert equal(outputs[name], as_received(array)), name
            assert equal(call.read()[name], as_received(array)), name

    @many
    @given(ARRAYS.filter(lambda array: not array.dtype.names))  # the op does not support quantized dtypes
    def their_tensors_from_cpp(array):
        from tfserving.wire import messages

        data = tf.io.serialize_tensor(tf.constant(as_received(array))).numpy()
        assert equal(tensors.to_array(messages.TensorProto.FromString(data)), as_received(array))

    our_requests()
    our_responses()
    their_messages()
    their_tensors_from_cpp()


def compare_descriptors() -> None:
    """Each of our fields exists in TensorFlow with the same number, type and kind."""
    from google.protobuf import descriptor_pool
    from tensorflow.core.example import example_pb2  # noqa: F401 - fill the default pool
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: F401
    from tensorflow_serving.apis import (  # noqa: F401 - those of the services do not import
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_management_pb2,
        predict_pb2,
        prediction_log_pb2,
    )
    from tensorflow_serving.config import model_server_config_pb2  # noqa: F401

    from tfserving.wire import messages

    theirs = descriptor_pool.Default()
    seen = set()

    def compare(ours) -> int:
        if ours.full_name in seen:
            return 0
        seen.add(ours.full_name)
        try:
            other = theirs.FindMessageTypeByName(ours.full_name)
        except KeyError:
            # no Python package has batching_parameters.proto and a few others
            print(f"not compared: {ours.full_name}")
            return 0
        count = 0
        for field in ours.fields:
            found = other.fields_by_number.get(field.number)
            assert found is not None, field.full_name
            kinds = [(one.name, one.type, one.is_repeated, one.has_presence) for one in (field, found)]
            assert kinds[0] == kinds[1], field.full_name
            if field.enum_type is not None:
                values = [dict(one.enum_type.values_by_number.items()) for one in (field, found)]
                names = [{number: value.name for number, value in one.items()} for one in values]
                assert names[0].items() <= names[1].items(), field.full_name
            count += 1
            if field.message_type is not None:
                count += compare(field.message_type)
        return count

    classes = [value for value in vars(messages).values() if isinstance(value, type)]
    total = sum(compare(one.DESCRIPTOR) for one in classes if hasattr(one, "DESCRIPTOR"))
    assert total > 150, total


if __name__ == "__main__":
    if sys.argv[1] == "codec":
        compare_codec()
    elif sys.argv[1] == "descriptors":
        compare_descriptors()
    else:
        live_together(sys.argv[1], sys.argv[2])
