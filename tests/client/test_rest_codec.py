import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfserving.client.rest_codec import RestCodec
from tfserving.errors import InvalidInputError, ProtocolError
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec
from tfserving.wire.signatures import Signature, TensorInfo


def infos(*names):
    return {name: TensorInfo(name, DType.DT_FLOAT, None) for name in names}


ONE = Signature("one", "m", infos("x"), infos("y"))
TWO = Signature("two", "m", infos("a", "b"), infos("p", "q"))


def body_of(codec, arrays, spec=ModelSpec("m")):  # noqa: B008 - frozen
    inputs = {name: TensorInfo(name, DType.of(array.dtype), None) for name, array in arrays.items()}
    signature = Signature("s", "m", inputs, {})
    request = codec.prepare_predict(spec, signature, ())(arrays)
    return request.path, json.loads(request.body)


def predict_request(signature):
    inputs = dict.fromkeys(signature.inputs, 0.0)
    return RestCodec().prepare_predict(ModelSpec("m"), signature, ())(inputs)


def floats(*values):
    return np.array(values, np.float32)


def test_writes_bodies_in_both_formats():
    one, two = {"x": floats(1, 2)}, {"a": floats(1, 2), "b": floats(3, 4)}
    columns, rows = RestCodec(), RestCodec(row_format=True)
    assert body_of(columns, one) == ("/v1/models/m:predict", {"inputs": {"x": [1, 2]}})
    assert body_of(rows, one)[1] == {"instances": [1, 2]}
    assert body_of(columns, two)[1] == {"inputs": {"a": [1, 2], "b": [3, 4]}}
    assert body_of(rows, two)[1] == {"instances": [{"a": 1, "b": 3}, {"a": 2, "b": 4}]}
    assert body_of(rows, {"a": np.array(["s"], object), "b": np.zeros((1, 2))})[1] == {
        "instances": [{"a": "s", "b": [0, 0]}]
    }
    path, body = body_of(columns, one, ModelSpec("m", 3, None, "sig"))
    assert path == "/v1/models/m/versions/3:predict"
    assert body["signature_name"] == "sig"
    assert body_of(columns, one, ModelSpec("m", None, "a/b"))[0] == "/v1/models/m/labels/a%2Fb:predict"


@pytest.mark.parametrize("arrays", [{"x": np.float32(1)}, {"a": floats(1), "b": floats(1, 2)}])
def test_row_format_rejects_inputs_without_a_common_batch_size(arrays):
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    with pytest.raises(InvalidInputError, match="row_format=False"):
        body_of(RestCodec(row_format=True), arrays)


@pytest.mark.parametrize(
    ("signature", "response", "expected"),
    [
        (ONE, {"outputs": [1, 2]}, {"y": [1, 2]}),
        (ONE, {"outputs": 1.5}, {"y": 1.5}),
        (ONE, {"predictions": [1, 2]}, {"y": [1, 2]}),
        (TWO, {"outputs": {"p": 1, "q": [2]}}, {"p": 1, "q": [2]}),
        (TWO, {"predictions": [{"p": 1, "q": 2}, {"p": 3, "q": 4}]}, {"p": [1, 3], "q": [2, 4]}),
        (TWO, {"predictions": []}, {"p": [], "q": []}),
    ],
)
def test_reads_responses_in_both_formats(signature, response, expected):
    got = predict_request(signature).decode(json.dumps(response).encode())
    assert {name: array.tolist() for name, array in got.items()} == expected
    assert all(array.dtype == np.float32 for array in got.values())


@pytest.mark.parametrize(
    "response",
    [
        {},
        [],
        None,
        {"outputs": [1], "predictions": [1]},
        {"outputs": {"p": 1}},
        {"outputs": {"p": 1, "q": 1, "r": 1}},
        {"outputs": [1]},
        {"predictions": [1]},
        {"predictions": [{"p": 1}]},
        {"predictions": 1},
    ],
)
def test_responses_of_another_form_are_protocol_errors(response):
    with pytest.raises(ProtocolError):
        predict_request(TWO).decode(json.dumps(response).encode())


@pytest.mark.parametrize(
    "response", [{}, [], {"results": 1}, {"results": [1]}, {"results": [[["a"]]]}, {"results": None}]
)
def test_classifications_of_another_form_are_protocol_errors(response):
    with pytest.raises(ProtocolError):
        RestCodec().classify(ModelSpec("m"), [], None).decode(json.dumps(response).encode())


@given(
    st.recursive(
        st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_is_a_response_or_a_protocol_error(response):
    data = json.dumps(response).encode()
    codec, spec = RestCodec(), ModelSpec("m")
    for request in (
        predict_request(ONE),
        codec.classify(spec, [], None),
        codec.regress(spec, [], None),
        codec.metadata(spec),
        codec.status(spec),
        codec.resolve_version(spec),
    ):
        with contextlib.suppress(ProtocolError):
            request.decode(data)
