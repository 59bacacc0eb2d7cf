"""Whatever the bytes, the parsers of both ports give a value or an error of ours, and agree with others."""

from __future__ import annotations

import gzip
import json
import zlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import strategies as st

from tests.fuzz import corpus
from tests.fuzz.mutations import mutated
from tests.fuzz.rounds import fuzz
from tfserving.errors import InvalidInputError, NotFoundError, ProtocolError, TfServingError, UnsupportedError
from tfserving.repository import config
from tfserving.server.rest import example_json, responses, rest_paths
from tfserving.server.rest.json_body import inflate, loads
from tfserving.server.rest.predict_request import Format, parse_predict
from tfserving.wire import limits, messages, predict, tensors
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import PREDICT_METHOD, Signature, TensorInfo

pytestmark = pytest.mark.fuzz


def outcome(function, *args):
    """A value, or the errors of ours that a function raises."""
    try:
        return function(*args), None
    except TfServingError as error:
        return None, error


def assert_same(one, other):
    """The same arrays, NaN for NaN, whatever memory they have."""
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        assert array.shape == other[name].shape
        assert array.tolist() == other[name].tolist() or array.tobytes() == other[name].tobytes()


@pytest.fixture(autouse=True)
def _small_tensors(monkeypatch):
    # a shape of a few bytes may stand for 2 GB, here as in TensorFlow: nothing to fill memory with in a test
    monkeypatch.setattr(limits, "MAX_MESSAGE_BYTES", 1 << 16)


@pytest.mark.parametrize(
    ("kind", "decode", "right"),
    [
        (messages.PredictRequest, predict.decode_request, corpus.PREDICT_REQUESTS),
        (messages.PredictResponse, predict.decode_response, corpus.PREDICT_RESPONSES),
    ],
    ids=["request", "response"],
)
def test_predict_messages_mean_what_protobuf_says(kind, decode, right):
    def check(data):
        predict.peek_model(data)
        found, error = outcome(decode, data)
        try:
            message = kind.FromString(data)
        except Exception:  # noqa: BLE001 - protobuf's own
            assert isinstance(error, ProtocolError)
            return
        entries = message.inputs if kind is messages.PredictRequest else message.outputs
        arrays, other = outcome(lambda: {name: tensors.to_array(proto) for name, proto in entries.items()})
        if other is not None:
            assert isinstance(error, ProtocolError)
            return
        assert error is None
        if kind is messages.PredictRequest:
            assert found.outputs == tuple(message.output_filter)
            spec, got = found.spec, found.inputs
        else:
            spec, got = found
        assert spec == ModelSpec.from_message(message.model_spec)
        assert_same(got, arrays)

    fuzz(mutated(right), check)


def signature(**dtypes):
    infos = {name: TensorInfo(name, dtype, None) for name, dtype in dtypes.items()}
    return Signature("serving_default", PREDICT_METHOD, infos, {})


SIGNATURES = [
    *(signature(x=dtype) for dtype in DType if dtype not in (DType.DT_INVALID,)),
    signature(a=DType.DT_FLOAT, b=DType.DT_INT64),
    signature(),
]


def read(body, called):
    request = parse_predict(body)
    return request.format, request.signature, request.read(called)


def test_predict_bodies_are_arrays_or_refused():
    def check(example):
        body, called = example
        with mock.patch("tfserving.server.rest.predict_request.LARGE_BYTES", 0):
            found, error = outcome(read, body, called)
        with mock.patch("tfserving.server.rest.predict_request.LARGE_BYTES", len(body) + 1):
            other, other_error = outcome(read, body, called)
        assert repr(error) == repr(other_error)
        if error is not None:
            assert isinstance(error, (InvalidInputError, UnsupportedError))
            responses.error(str(error))
            return
        assert found[:2] == other[:2]
        assert_same(found[2], other[2])
        assert all(array.dtype == called.inputs[name].dtype.numpy for name, array in found[2].items())

    fuzz(st.tuples(mutated(corpus.BODIES, corpus.WORDS), st.sampled_from(SIGNATURES)), check)


@st.composite
def nested(draw):
    """JSON-like values, rectangular or not."""
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


def test_answers_are_json_that_reads_back_as_the_same_arrays():
    def check(example):
        value, dtype = example
        body = b'{"inputs": {"x": %s}}' % _json(value)
        found, error = outcome(read, body, signature(x=dtype))
        if error is not None or not found[2]:
            return
        text, refused = outcome(responses.predictions, {"x": found[2]["x"]}, Format.COLUMN)
        if refused is not None:
            assert isinstance(refused, InvalidInputError)
            return
        again = b'{"inputs": %s' % text.removeprefix(b'{"outputs":')
        if dtype is DType.DT_STRING and b"\\u" in _json(value):
            return  # halves of surrogate pairs
        if found[2]["x"].size:
            assert_same(read(again, signature(x=dtype))[2], found[2])

    fuzz(
        st.tuples(
            nested(), st.sampled_from([DType.DT_FLOAT, DType.DT_DOUBLE, DType.DT_INT64, DType.DT_BOOL])
        ),
        check,
    )


def _json(value):
    return json.dumps(value).encode()


def test_example_bodies_are_messages_or_refused():
    def check(body):
        found, error = outcome(example_json.parse_examples, body)
        if error is not None:
            assert isinstance(error, InvalidInputError)
            return
        assert messages.Input.FromString(found[1].SerializeToString()) == found[1]

    fuzz(mutated(corpus.EXAMPLE_BODIES, corpus.WORDS), check)


def test_compressed_bodies_are_inflated_or_refused():
    limit = 1000
    right = [gzip.compress(b"x" * 500, mtime=0), zlib.compress(corpus.BODIES[0]), gzip.compress(b"y" * 10**6)]

    def check(example):
        data, encoding = example
        found, error = outcome(inflate, data, encoding, limit)
        assert error is None or isinstance(error, InvalidInputError)
        assert error or len(found) <= limit or found == data

    fuzz(st.tuples(mutated(right), st.sampled_from(["gzip", "deflate", "", "br", "GZip "])), check)


def test_paths_are_calls_or_refused():
    right = [data.split(b" ")[1] for data in corpus.HTTP_REQUESTS]

    def check(example):
        method, raw = example
        path = raw.decode("utf-8", "surrogateescape")
        found, error = outcome(rest_paths.parse, method, path)
        if error is None:
            assert found.spec.name
            assert found.spec.version is None or 0 <= found.spec.version < 2**63
        else:
            assert isinstance(error, (InvalidInputError, NotFoundError))
            responses.error(str(error))

    fuzz(st.tuples(st.sampled_from(["GET", "POST", "PUT"]), mutated(right, corpus.HTTP_WORDS)), check)


def test_configurations_are_read_or_refused():
    right = [
        config.to_text(config.from_message(messages.ReloadConfigRequest.FromString(data).config)).encode()
        for data in corpus.RELOADS
    ]

    def check(data):
        try:
            message = messages.ReloadConfigRequest.FromString(data)
        except Exception:  # noqa: BLE001 - protobuf's own
            text = data.decode("utf-8", "replace")
            found, error = outcome(config.parse, text)
        else:
            found, error = outcome(config.from_message, message.config)
        if error is not None:
            assert isinstance(error, config.ConfigError)
            return
        assert config.parse(config.to_text(found)) == found

    fuzz(mutated([*corpus.RELOADS, *right], corpus.WORDS), check)


def test_json_is_read_or_refused():
    def check(body):
        found, error = outcome(loads, body)
        assert error is None or isinstance(error, InvalidInputError)
        assert error or not isinstance(found, np.ndarray)

    fuzz(mutated(corpus.BODIES, corpus.WORDS), check)
