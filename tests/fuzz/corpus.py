"""Valid messages, bodies and requests of both APIs, for `mutations` to change."""

from __future__ import annotations

import functools
import gzip
import json
import struct

import numpy as np

from tfserving.wire import messages, predict, services, tensors
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec

ARRAYS = [
    np.zeros((), np.float32),
    np.array([[1.0], [-2.5], [np.nan]], np.float32),
    np.array([1.5, 2.5]),
    np.array([1, 2, 300], np.float16),
    np.array([[1, -2, 3]], np.int32),
    np.array([2**63 - 1, -(2**63)], np.int64),
    np.array([0, 255], np.uint8),
    np.array([2**64 - 1], np.uint64),
    np.array([True, False]),
    np.array([1 + 2j], np.complex64),
    np.array([b"", b"a", "wörld".encode(), b"\xff\0"], object),
    np.zeros((0, 3), np.float32),
    np.zeros((2, 2, 2, 3), np.float32),
]


def _predict_requests() -> list[bytes]:
    requests = []
    for array in ARRAYS:
        name = DType.of(array.dtype).label
        spec = ModelSpec("types", 1, signature="float16" if name == "half" else name)
        requests.append(predict.encode_request(spec, {"x": array}))
        for tensor_content in (True, False):
            message = messages.PredictRequest(model_spec=spec.to_message(), output_filter=["y"])
            message.inputs["x"].CopyFrom(tensors.to_proto(array, tensor_content=tensor_content))
            requests.append(message.SerializeToString())
    for spec in (
        ModelSpec("half_plus_two"),
        ModelSpec("shapes"),
        ModelSpec("shapes", signature="matrix"),
        ModelSpec("chosen", label="canary"),
    ):
        requests.append(predict.encode_request(spec, {"x": ARRAYS[1]}))
    inputs = {"a": np.ones((2, 3), np.float32), "b": np.array([1, 2])}
    requests.append(predict.encode_request(ModelSpec("multi"), inputs, ["sum"]))
    requests.append(predict.encode_request(ModelSpec("text"), {"s": ARRAYS[10]}))
    return requests


def _make_input(context: bool) -> object:
    message = messages.Input()
    examples = message.example_list_with_context if context else message.example_list
    example = examples.examples.add()
    example.features.feature["x"].float_list.value.append(80.0)
    if context:
        message.example_list_with_context.context.features.feature["x2"].float_list.value.append(1.0)
    return message


def _other_calls() -> list[tuple[str, bytes]]:
    spec = {"name": "half_plus_two", "signature_name": "regress_x_to_y"}
    classify = spec | {"signature_name": "classify_labels"}
    tasks = [
        {"model_spec": spec, "method_name": "tensorflow/serving/regress"},
        {"model_spec": classify, "method_name": "tensorflow/serving/classify"},
    ]
    calls = [
        (services.GET_MODEL_METADATA, {"model_spec": spec, "metadata_field": ["signature_def"]}),
        (services.GET_MODEL_STATUS, {"model_spec": spec}),
        (services.GET_MODEL_STATUS, {"model_spec": {"name": "every", "version": {"value": 3}}}),
    ]
    for context in (False, True):
        calls += [
            (services.REGRESS, {"model_spec": spec, "input": _make_input(context)}),
            (services.CLASSIFY, {"model_spec": classify, "input": _make_input(context)}),
            (services.MULTI_INFERENCE, {"tasks": tasks, "input": _make_input(context)}),
        ]
    return [(method.path, method.request(**fields).SerializeToString()) for method, fields in calls]


PREDICT_REQUESTS = _predict_requests()

# Method path and serialized request of each RPC except HandleReloadConfigRequest.
CALLS = [(services.PREDICT.path, data) for data in PREDICT_REQUESTS] + _other_calls()


@functools.cache
def amplifying_calls() -> list[tuple[str, bytes]]:
    """Return method path and serialized request of RPCs that cost much for their size."""
    calls = []
    for dtype, size, values in (
        (DType.DT_INT8, 2**31 - 1, {"int_val": [1]}),
        (DType.DT_FLOAT, 2**29 - 1, {"float_val": [1.0]}),
        (DType.DT_STRING, 2**28 - 1, {"string_val": [b"a"]}),
        (DType.DT_FLOAT, 2**22, {}),
    ):
        request = messages.PredictRequest(model_spec={"name": "half_plus_two"})
        tensor = {"dtype": dtype, "tensor_shape": {"dim": [{"size": size}]}, **values}
        request.inputs["x"].CopyFrom(messages.TensorProto(**tensor))
        calls.append((services.PREDICT.path, request.SerializeToString()))
    spec = b"\x0a\x0f\x0a\x0dhalf_plus_two"
    tensor_of_fields = delimited(
        0x12, b"\x0a\x01x" + delimited(0x12, b"\x08\x01" + b"\x2d\0\0\0\0" * 1_000_000)
    )
    calls += [
        (services.PREDICT.path, spec + tensor_of_fields),
        (services.PREDICT.path, spec + b"\x12\0" * 2_000_000),
        (services.MULTI_INFERENCE.path, b"\x0a\0" * 2_000_000),
    ]
    for path in (services.CLASSIFY.path, services.REGRESS.path):
        for example in (b"\x0a\0", b"\x0a\x02\x0a\0", b"\x0a\x04\x0a\x02\x0a\0"):
            examples = delimited(0x12, delimited(0x0A, example * (4_000_000 // len(example))))
            calls.append((path, spec + examples))
    return calls


def delimited(tag: int, content: bytes) -> bytes:
    """Encode a field of protobuf that has a length; `tag` is its one byte."""
    size = bytearray()
    rest = len(content)
    while rest > 127:
        size.append(rest & 127 | 128)
        rest >>= 7
    return bytes((tag, *size, rest)) + content


PREDICT_RESPONSES = [
    predict.encode_response(
        ModelSpec("m", 3, signature="s"), {"y": array, "z": ARRAYS[1]}, tensor_content=packed
    )
    for array in ARRAYS
    for packed in (True, False)
]

RELOADS = [
    messages.ReloadConfigRequest(
        config={
            "model_config_list": {
                "config": [
                    {
                        "name": "a",
                        "base_path": "/models/a",
                        "model_platform": "tensorflow",
                        "model_version_policy": {"specific": {"versions": [1, 2]}},
                        "version_labels": {"stable": 1},
                    },
                    {
                        "name": "b",
                        "base_path": "/models/b",
                        "model_platform": "tensorflow",
                        "model_version_policy": {"latest": {"num_versions": 2}},
                    },
                ]
            }
        }
    ).SerializeToString()
]

BODIES = [
    json.dumps(body).encode()
    for body in (
        {"instances": [1.0, 2.5, -3e2]},
        {"instances": [[1, 2, 3], [4, 5, 6]], "signature_name": "serving_default"},
        {"instances": [{"a": [1, 2, 3], "b": 4}, {"a": [5, 6, 7], "b": 8}]},
        {"instances": [{"b64": "aGVsbG8="}, {"b64": ""}]},
        {"instances": ["hello", "w\u00f6rld", "\ud83d\ude00"]},
        {"instances": [True, False]},
        {"inputs": {"a": [[1, 2, 3]], "b": [4]}},
        {"inputs": [[[1.5]]]},
        {"inputs": 4.0},
        {"inputs": {"x": [[1, 2], [3, 4]], "signature_name": 3}},
        {"instances": [9223372036854775807, -9223372036854775808, 18446744073709551615]},
        {"instances": [float("nan"), float("inf"), -float("inf")]},
        {"instances": []},
    )
]

EXAMPLE_BODIES = [
    json.dumps(body).encode()
    for body in (
        {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}, {"x": [2.0]}]},
        {"context": {"x2": 1.0}, "examples": [{"x": 80, "s": ["a", {"b64": "YQ=="}], "t": True}]},
    )
]

JSON_TOKENS = [
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b'"',
        b"\\",
        b"\\u",
        b"\\ud800",
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
    ),
    *(
        b"Inf",
        b"1e999",
        b"-0",
        b"0.",
        b"1" * 30,
        b"[" * 40,
        b"\xef\xbb\xbf",
        b'"b64"',
        b'"instances"',
        b" " * 70,
    ),
]


def http_request(line: str, body: bytes = b"", *headers: str) -> bytes:
    """Encode an HTTP request."""
    lines = [f"{line} HTTP/1.1", "Host: x", *headers]
    if body or line.startswith("POST"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


_PREDICT = "POST /v1/models/half_plus_two:predict"
_BODY = b'{"instances": [[1.0], [2.0]]}'

HTTP_REQUESTS = [
    http_request(_PREDICT, _BODY),
    http_request("POST /v1/models/multi:predict", BODIES[2]),
    http_request("POST /v1/models/text/versions/1:predict", BODIES[3]),
    http_request("POST /v1/models/half_plus_two:regress", EXAMPLE_BODIES[0]),
    http_request(_PREDICT, gzip.compress(_BODY, mtime=0), "Content-Encoding: gzip"),
    http_request(_PREDICT, _BODY, "Expect: 100-continue", "Accept-Encoding: gzip"),
    http_request("GET /v1/models/every"),
    http_request("GET /v1/models/chosen/labels/canary/metadata", b"", "Connection: keep-alive"),
    http_request("GET /v1/models/half_plus_two") + http_request(_PREDICT, _BODY),
    http_request("OPTIONS *"),
    f"{_PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    + b"%x\r\n%s\r\n0\r\n\r\n" % (len(_BODY), _BODY),
]


@functools.cache
def amplifying_http_requests() -> list[bytes]:
    """Return HTTP requests with compressed bodies that are up to 1,000 times as large, and slow to parse."""
    bodies = (
        b'{"instances":[' + b"[]," * (64_000_000 // 3) + b"1]}",
        b'{"instances":[' + b'"",' * 1_000_000 + b"1",
        b'{"instances":[' + b"[]," * 750_000 + b"1]}",
        b'{"instances":[[' + b"0," * 10_000_000 + b"1]]}",
        b'{"instances":' + b"[" * 30_000_000,
        b'{"x":NaN,"instances":' + b'"' * 60_000_000,
        b" " * 200_000_000,
    )
    return [http_request(_PREDICT, gzip.compress(body, 1), "Content-Encoding: gzip") for body in bodies]


HTTP_TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b" ",
        b"\0",
        b"%",
        b"%00",
        b"%c3%28",
        b"/../",
        b"//",
        b"HTTP/1.0",
        b"HTTP/2.0",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: upgrade\r\n"),
    *(b"Upgrade: h2c\r\n", b"Content-Encoding: deflate\r\n", b"Expect: nothing\r\n", b"ffffffffffffffff\r\n"),
    *(
        b"/versions/99999999999999999999",
        b"/labels/",
        b":predict",
        b"A: " + b"b" * 9000 + b"\r\n",
        *JSON_TOKENS,
    ),
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """Encode an HTTP/2 frame; `length` overrides the length of the payload."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size & 0xFFFFFF)[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def header_block(path: str) -> bytes:
    """Encode the headers of a gRPC call in HPACK without compression."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in headers.items()
    )


def grpc_message(data: bytes) -> bytes:
    """Add the length prefix of gRPC to a message."""
    return b"\0" + struct.pack(">I", len(data)) + data


DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4


def grpc_call(path: str, data: bytes) -> bytes:
    """Encode everything that a client sends for one call on a new connection."""
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, 4, 1, header_block(path))
        + frame(DATA, 1, 1, grpc_message(data))
    )
