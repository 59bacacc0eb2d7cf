"""The server that anybody would write first: python -m benchmarks.naive_server SAVED_MODEL PORT

`grpc.server` with 8 threads, TensorFlow Serving's official protos, a callable of a TensorFlow session.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Predictor(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, path: str) -> None:
        session = tf.compat.v1.Session(graph=tf.Graph())
        with session.graph.as_default():
            graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
        signature = graph.signature_def["serving_default"]
        self.inputs, self.outputs = list(signature.inputs), list(signature.outputs)
        self.call = session.make_callable(
            [signature.outputs[name].name for name in self.outputs],
            [signature.inputs[name].name for name in self.inputs],
        )

    def Predict(self, request, context):  # noqa: N802 - the name of the call
        values = self.call(*(tf.make_ndarray(request.inputs[name]) for name in self.inputs))
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
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
