"""The shortest Python server for a SavedModel: python -m benchmarks.minimal_server SAVED_MODEL PORT

`grpc.server` with 8 threads, the messages of tensorflow-serving-api, and a TensorFlow session.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def load_callable(path: str) -> tuple[Callable, list[str], list[str]]:
    """Load a SavedModel; return a function of arrays, and the names of its inputs and outputs."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
    signature = graph.signature_def["serving_default"]
    inputs, outputs = list(signature.inputs), list(signature.outputs)
    function = session.make_callable(
        [signature.outputs[name].name for name in outputs], [signature.inputs[name].name for name in inputs]
    )
    return function, inputs, outputs


class Predictor(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, path: str) -> None:
        self.function, self.inputs, self.outputs = load_callable(path)

    def Predict(self, request, context):  # noqa: N802 - the name of the method
        values = self.function(*(tf.make_ndarray(request.inputs[name]) for name in self.inputs))
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for name, value in zip(self.outputs, values, strict=True):
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


def main(path: str, port: str) -> None:
    server = grpc.server(
        ThreadPoolExecutor(8),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predictor(path), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
