"""Bodies of gRPC requests: the cache accepts exactly what the checks accept."""

import numpy as np
import pytest

from tfserving.client.rpc_codec import RpcCodec
from tfserving.errors import InvalidInputError
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.predict import decode_request
from tfserving.wire.signatures import Signature, TensorInfo


def body_writer(*inputs, shape=None, defaults=()):
    infos = {name: TensorInfo(name, DType.DT_FLOAT, shape) for name in inputs}
    signature = Signature("s", "m", infos, {}, {name: np.float32(0) for name in defaults})
    request_for = RpcCodec().prepare_predict(ModelSpec("m"), signature, ())
    return lambda inputs: request_for(inputs).body


def test_repeated_requests_accept_and_reject_the_same_inputs():
    body = body_writer("x", shape=(None, 2))
    for _ in range(2):
        good = np.random.default_rng(0).random((3, 2), np.float32)
        assert np.array_equal(decode_request(body({"x": good})).read()["x"], good)
        assert np.array_equal(decode_request(body({"x": good[:, ::-1]})).read()["x"], good[:, ::-1])
        for bad in (np.zeros((3, 2)), np.zeros((3, 3), np.float32), np.zeros((3, 2), ">f8")):
            with pytest.raises(InvalidInputError):
                body({"x": bad})
        assert decode_request(body([[1, 2]])).read()["x"].tolist() == [[1, 2]]


def test_repeated_requests_still_check_the_names_of_inputs():
    body = body_writer("a", "b", "c", defaults=("c",))
    array = np.zeros(1, np.float32)
    for _ in range(2):
        assert decode_request(body(dict.fromkeys("abc", array))).read().keys() == {"a", "b", "c"}
        assert decode_request(body(dict.fromkeys("ba", array))).read().keys() == {"a", "b"}
        with pytest.raises(InvalidInputError, match="needs input 'b'"):
            body(dict.fromkeys("ac", array))
        with pytest.raises(InvalidInputError, match="no input 'd'"):
            body(dict.fromkeys("abd", array))
