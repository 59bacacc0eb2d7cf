"""For any bytes, parsers return a value or raise a `TfServingError`, and agree with reference parsers."""

from __future__ import annotations

import gzip
import json
import zlib
from unittest import mock

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import strategies as st

from tests.fuzz import corpus
from tests.fuzz.mutations import mutated
from tfserving.errors import InvalidInputError, NotFoundError, ProtocolError, TfServingError, UnsupportedError
from tfserving.repository import config
from tfserving.server.rest import example_json, responses, rest_paths
from tfserving.server.rest.json_body import inflate, parse_body
from tfserving.server.rest.predict_request import Format, parse_predict
from tfserving.wire import limits, messages, predict, tensors
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import PREDICT_METHOD, Signature, TensorInfo

pytestmark = pytest.mark.fuzz


def value_or_error(function, *args):
    """Return the value and None, or None and the `TfServingError`; other exceptions are failures."""
    try:
        return function(*args), None
    except TfServingError as error:
        return None, error


def assert_same_arrays(one, other):
    """Assert equal names, dtypes, shapes and values; NaN equals NaN."""
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        assert array.shape == other[name].shape
        assert array.tolist() == other[name].tolist() or array.tobytes() == other[name].tobytes()


@pytest.fixture(autouse=True)
def _small_tensors(monkeypatch):
    # A shape of a few bytes can mean 2 GB.
    monkeypatch.setattr(limits, "MAX_MESSAGE_BYTES", 1 << 16)


def decode_request(data):
    call = predict.decode_request(data)
    return call, call.read()


@pytest.mark.parametrize(
    ("kind", "decode", "valid"),
    [
        (messages.PredictRequest, decode_request, corpus.PREDICT_REQUESTS),
        (messages.PredictResponse, predict.decode_response, corpus.PREDICT_RESPONSES),
    ],
    ids=["request", "response"],
)
def test_decodes_predict_messages_like_protobuf(fuzz, kind, decode, valid):
    def check(data):
        predict.peek_model(data)
        value, error = value_or_error(decode, data)
        try:
            message = kind.FromString(data)
        except Exception:  # noqa: BLE001 - of protobuf
            assert isinstance(error, ProtocolError)
            return
        entries = message.inputs if kind is messages.PredictRequest else message.outputs
        arrays, other = value_or_error(
            lambda: {name: tensors.to_array(proto) for name, proto in entries.items()}
        )
        if other is not None:
            assert isinstance(error, ProtocolError)
            return
        assert error is None
        if kind is messages.PredictRequest:
            call, got = value
            assert call.outputs == tuple(message.output_filter)
            spec = call.spec
        else:
            spec, got = value
        assert spec == ModelSpec.from_message(message.model_spec)
        assert_same_arrays(got, arrays)

    fuzz(mutated(valid), check)


def make_signature(**dtypes):
    infos = {name: TensorInfo(name, dtype, None) for name, dtype in dtypes.items()}
    return Signature("serving_default", PREDICT_METHOD, infos, {})


SIGNATURES = [
    *(make_signature(x=dtype) for dtype in DType if dtype not in (DType.DT_INVALID,)),
    make_signature(a=DType.DT_FLOAT, b=DType.DT_INT64),
    make_signature(),
]


def read_predict_body(body, signature):
    request = parse_predict(body)
    return request.format, request.signature, request.read(signature)


def test_both_parsers_of_predict_bodies_return_the_same_arrays_or_error(fuzz):
    def check(example):
        body, signature = example
        with mock.patch("tfserving.server.rest.predict_request.LONG_BYTES", 0):
            value, error = value_or_error(read_predict_body, body, signature)
        with mock.patch("tfserving.server.rest.predict_request.LONG_BYTES", len(body) + 1):
            other, other_error = value_or_error(read_predict_body, body, signature)
        assert repr(error) == repr(other_error)
        if error is not None:
            assert isinstance(error, (InvalidInputError, UnsupportedError))
            responses.encode_error(str(error))
            return
        assert value[:2] == other[:2]
        assert_same_arrays(value[2], other[2])
        assert all(array.dtype == signature.inputs[name].dtype.numpy for name, array in value[2].items())

    fuzz(st.tuples(mutated(corpus.BODIES, corpus.JSON_TOKENS), st.sampled_from(SIGNATURES)), check)


@st.composite
def nested_values(draw):
    """Nested lists of JSON values, rectangular or not."""
    leaf = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**65), 2**65),
        st.floats(),
        st.text(max_size=3),
        st.builds(lambda text: {"b64": text}, st.text("aZ0+/=-", max_size=6)),
    )
    size = st.integers(0, 3)
    value = draw(leaf)
    for _ in range(draw(st.integers(0, 4))):
        value = [value if draw(st.integers(0, 9)) else draw(leaf) for _ in range(draw(size))]
    return value


def test_responses_parse_as_the_same_arrays(fuzz):
    def check(example):
        values, dtype = example
        body = b'{"inputs": {"x": %s}}' % json.dumps(values).encode()
        value, error = value_or_error(read_predict_body, body, make_signature(x=dtype))
        if error is not None or not value[2]:
            return
        text, error = value_or_error(responses.encode_predictions, {"x": value[2]["x"]}, Format.COLUMN)
        if error is not None:
            assert isinstance(error, InvalidInputError)
            return
        again = b'{"inputs": %s' % text.removeprefix(b'{"outputs":')
        if value[2]["x"].size:
            assert_same_arrays(read_predict_body(again, make_signature(x=dtype))[2], value[2])

    fuzz(
        st.tuples(
            nested_values(), st.sampled_from([DType.DT_FLOAT, DType.DT_DOUBLE, DType.DT_INT64, DType.DT_BOOL])
        ),
        check,
    )


def test_parses_or_rejects_bodies_with_examples(fuzz):
    def check(body):
        value, error = value_or_error(example_json.parse_examples, body)
        if error is not None:
            assert isinstance(error, InvalidInputError)
            return
        assert messages.Input.FromString(value[1].SerializeToString()) == value[1]

    fuzz(mutated(corpus.EXAMPLE_BODIES, corpus.JSON_TOKENS), check)


def test_inflates_or_rejects_compressed_bodies(fuzz):
    limit = 1000
    valid = [gzip.compress(b"x" * 500, mtime=0), zlib.compress(corpus.BODIES[0]), gzip.compress(b"y" * 10**6)]

    def check(example):
        data, encoding = example
        value, error = value_or_error(inflate, data, encoding, limit)
        assert error is None or isinstance(error, InvalidInputError)
        assert error or len(value) <= limit or value == data

    fuzz(st.tuples(mutated(valid), st.sampled_from(["gzip", "deflate", "", "br", "GZip "])), check)


def test_parses_or_rejects_paths(fuzz):
    valid = [data.split(b" ")[1] for data in corpus.HTTP_REQUESTS]

    def check(example):
        method, raw = example
        path = raw.decode("utf-8", "surrogateescape")
        value, error = value_or_error(rest_paths.parse_request_line, method, path)
        if error is None:
            assert value.spec.name
            assert value.spec.version is None or 0 <= value.spec.version < 2**63
        else:
            assert isinstance(error, (InvalidInputError, NotFoundError))
            responses.encode_error(str(error))

    fuzz(st.tuples(st.sampled_from(["GET", "POST", "PUT"]), mutated(valid, corpus.HTTP_TOKENS)), check)


def test_parses_or_rejects_configurations(fuzz):
    valid = [
        text_format.MessageToString(messages.ReloadConfigRequest.FromString(data).config).encode()
        for data in corpus.RELOADS
    ]

    def check(data):
        text = None
        try:
            message = messages.ReloadConfigRequest.FromString(data).config
        except Exception:  # noqa: BLE001 - of protobuf
            text = data.decode("utf-8", "replace")
            value, error = value_or_error(config.parse_config, text)
        else:
            value, error = value_or_error(config.from_message, message)
        if error is not None:
            assert isinstance(error, config.ConfigError)
            return
        if text is not None:
            message = text_format.Parse(text, messages.ModelServerConfig())
        assert config.parse_config(text_format.MessageToString(message, as_utf8=True)) == value

    fuzz(mutated([*corpus.RELOADS, *valid], corpus.JSON_TOKENS), check)


def test_parses_or_rejects_json(fuzz):
    def check(body):
        value, error = value_or_error(parse_body, body)
        assert error is None or isinstance(error, InvalidInputError)
        assert error or not isinstance(value, np.ndarray)

    fuzz(mutated(corpus.BODIES, corpus.JSON_TOKENS), check)
