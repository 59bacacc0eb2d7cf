"""Sends the conformance cases to a server. Run it from the root of the checkout.

    python -m tests.conformance.zoo DIR            export the models and DIR/models.config
    SERVER --port=8500 --rest_api_port=8501 --model_config_file=DIR/models.config
    python -m tests.conformance.conformance check --grpc 127.0.0.1:8500 --rest 127.0.0.1:8501
                                                   exit 1 if a response differs from the recorded one
    python -m tests.conformance.conformance record --grpc … --rest … --golden FILE
                                                   record the responses
    python -m tests.conformance.conformance ask --grpc … --rest … --answers FILE
                                                   write the responses with their error messages

compare.py defines what has to agree. Start the server with --allow_version_labels_for_unavailable_models=true and
--grpc_max_threads=64, like the recorded one.
"""
import argparse
import http.client
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc  # noqa: E402
import tensorflow as tf  # noqa: E402
from google.protobuf import json_format  # noqa: E402
from tensorflow_serving.apis import (get_model_metadata_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc)  # noqa: E402,F401

from tests.conformance import cases, compare  # noqa: E402


def tensor(proto):
    array = tf.make_ndarray(proto)
    values = [v.decode("latin-1") if isinstance(v, bytes) else v for v in array.reshape(-1).tolist()]
    values = [[v.real, v.imag] if isinstance(v, complex) else v for v in values]
    return {"dtype": tf.as_dtype(proto.dtype).name, "shape": list(array.shape), "values": values}


def answer_of(rpc, reply):
    if rpc == "Predict":
        return {"outputs": {key: tensor(value) for key, value in reply.outputs.items()},
                "model_spec": json_format.MessageToDict(reply.model_spec)}
    if rpc == "GetModelMetadata":
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        return {"signature_def": json_format.MessageToDict(signatures), "model_spec": json_format.MessageToDict(reply.model_spec)}
    return json_format.MessageToDict(reply)


def call_grpc(channel, rpc, build):
    stub = (model_service_pb2_grpc.ModelServiceStub if rpc == "GetModelStatus" else prediction_service_pb2_grpc.PredictionServiceStub)(channel)
    try:
        return {"code": "OK", "answer": answer_of(rpc, getattr(stub, rpc)(build(), timeout=20))}
    except grpc.RpcError as error:
        return {"code": error.code().name, "message": error.details()}


def call_rest(address, method, path, body):
    connection = http.client.HTTPConnection(address, timeout=20)
    payload = None if body is None else body if isinstance(body, str) else json.dumps(body)
    try:
        connection.request(method, path, payload, {"Content-Type": "application/json"} if payload is not None else {})
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:  # the other cases are still to be asked
        return {"status": 0, "content_type": None, "answer": {"error": repr(error)}}
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {"text": text}
    return {"status": response.status, "content_type": response.getheader("Content-Type"), "answer": answer}


def run(grpc_address, rest_address):
    channel = grpc.insecure_channel(grpc_address, [("grpc.max_receive_message_length", -1)])
    answers = {f"grpc: {name}": call_grpc(channel, rpc, build) for name, rpc, build in cases.GRPC}
    answers.update({f"rest: {name}": call_rest(rest_address, method, path, body) for name, method, path, body in cases.REST})
    return answers


def show(answer):
    return json.dumps(answer, ensure_ascii=False)[:600]


def check(golden, answers):
    wrong = [name for name in golden if name not in answers or not compare.agree(golden[name], answers[name])]
    for name in wrong:
        print(f"DIFFERS {name}\n  expected {show(golden[name])}\n  got      {show(answers.get(name))}")
    print(f"{len(golden) - len(wrong)} passed, {len(wrong)} failed")
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "record", "ask"])
    parser.add_argument("--grpc", required=True, metavar="HOST:PORT")
    parser.add_argument("--rest", required=True, metavar="HOST:PORT")
    parser.add_argument("--golden", type=pathlib.Path, default=compare.GOLDEN, metavar="FILE")
    parser.add_argument("--answers", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    if (args.what == "ask") != (args.answers is not None):
        parser.error("ask, and nothing else, needs --answers FILE")
    answers = run(args.grpc, args.rest)
    if args.what == "ask":
        compare.save(args.answers, answers)
    elif args.what == "record":
        compare.save(args.golden, {name: compare.kept(answer) for name, answer in answers.items()})
        print(f"recorded {len(answers)} answers")
    else:
        sys.exit(not check(compare.load(args.golden), answers))


if __name__ == "__main__":
    main()
