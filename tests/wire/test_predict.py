import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.arrays import ARRAYS, as_received, same
from tfserving.errors import InvalidInputError, ProtocolError
from tfserving.wire import messages, predict, tensors
from tfserving.wire.dtypes import DType
from tfserving.wire.model_spec import ModelSpec

SPECS = st.builds(
    ModelSpec,
    st.text(max_size=5),
    version=st.none() | st.integers(0, 2**63 - 1),
    signature=st.text(max_size=5),
) | st.builds(ModelSpec, st.text(max_size=5), label=st.text(max_size=5), signature=st.text(max_size=5))


@given(
    SPECS, st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3), st.lists(st.text(max_size=5), max_size=2)
)
def test_a_request_survives_a_round_trip(spec, inputs, outputs):
    call = predict.decode_request(predict.encode_request(spec, inputs, outputs))
    assert call.spec == spec
    assert call.outputs == tuple(outputs)
    got = call.read()
    assert got.keys() == inputs.keys()
    assert all(same(got[name], as_received(array)) for name, array in inputs.items())


@given(SPECS, st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3), st.booleans())
def test_a_response_survives_a_round_trip(spec, outputs, tensor_content):
    data = predict.encode_response(spec, outputs, tensor_content=tensor_content)
    got_spec, got = predict.decode_response(data)
    assert got_spec == spec
    assert got.keys() == outputs.keys()
    assert all(same(got[name], as_received(array)) for name, array in outputs.items())
    assert all(array.flags.writeable and array.flags.aligned for array in got.values())


@given(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=2), st.booleans())
def test_protobuf_reads_and_writes_the_same_messages(arrays, tensor_content):
    spec = ModelSpec("m", version=3, signature="s")
    message = messages.PredictResponse(model_spec=spec.to_message())
    for name, array in arrays.items():
        message.outputs[name].CopyFrom(tensors.to_proto(array, tensor_content=tensor_content))
    spliced = messages.PredictResponse.FromString(
        predict.encode_response(spec, arrays, tensor_content=tensor_content)
    )
    # as bytes: before protobuf 5 a NaN differs from itself
    assert spliced.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
    _, got = predict.decode_response(message.SerializeToString())
    assert all(same(got[name], as_received(array)) for name, array in arrays.items())


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_protocol_error(data):
    for decode in (lambda data: predict.decode_request(data).read(), predict.decode_response):
        with contextlib.suppress(ProtocolError):
            decode(data)


@given(st.data())
def test_a_damaged_message_is_decoded_as_by_protobuf(data):
    array = data.draw(ARRAYS)
    whole = bytearray(
        predict.encode_response(
            ModelSpec("m", version=1), {"y": array}, tensor_content=data.draw(st.booleans())
        )
    )
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        _, got = predict.decode_response(damaged)
    except ProtocolError:
        return
    message = messages.PredictResponse.FromString(damaged)
    assert all(same(got[name], tensors.to_array(proto)) for name, proto in message.outputs.items())


@pytest.mark.parametrize("shape", [[1] * 70, [2**62, 4, 0]])
def test_a_shape_that_no_array_has_is_a_protocol_error(shape):
    request = messages.PredictRequest()
    tensor = request.inputs["x"]
    tensor.dtype = DType.DT_FLOAT
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    if all(shape):
        tensor.tensor_content = bytes(4)
    with pytest.raises(ProtocolError, match="tensor 'x'"):
        predict.decode_request(request.SerializeToString()).read()


def test_an_empty_label_and_version_0_are_not_none():
    assert predict.decode_request(predict.encode_request(ModelSpec("m", label=""), {})).spec.label == ""
    assert predict.decode_request(predict.encode_request(ModelSpec("m"), {})).spec.label is None
    assert predict.decode_request(predict.encode_request(ModelSpec("m", version=0), {})).spec.version == 0


def test_rejects_a_message_over_2_gib_before_building_it():
    huge = np.broadcast_to(np.zeros(1, np.uint8), (2**31,))
    with pytest.raises(InvalidInputError, match="split the batch"):
        predict.encode_request(ModelSpec("m"), {"x": huge})
    with pytest.raises(InvalidInputError, match="split the batch"):
        predict.encode_response(ModelSpec("m"), {"x": huge}, tensor_content=True)


@given(
    st.dictionaries(st.text(max_size=3), ARRAYS, max_size=3),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3),
)
def test_a_message_similar_to_a_cached_layout_is_decoded_as_by_protobuf(arrays, changes):
    data = bytearray(predict.encode_response(ModelSpec("m", 1), arrays, tensor_content=True))
    predict.decode_response(bytes(data))  # caches the layout
    for at, value in changes:
        data[at % len(data)] = value
    try:
        spec, got = predict.decode_response(bytes(data))
    except ProtocolError:
        return
    message = messages.PredictResponse.FromString(bytes(data))
    assert spec == ModelSpec.from_message(message.model_spec)
    assert got.keys() == message.outputs.keys()
    for name, proto in message.outputs.items():
        assert same(got[name], tensors.to_array(proto))
        assert got[name].flags.writeable


def test_cached_requests_have_the_same_size_limit(monkeypatch):
    writer = predict.RequestWriter(ModelSpec("m"))
    part = np.zeros(2**17, np.uint8)
    for _ in range(2):
        writer.write({"a": part})
        writer.write({"b": part})
    monkeypatch.setattr(predict.limits, "MAX_MESSAGE_BYTES", 2**17 + 2**10)
    writer.write({"a": part})
    with pytest.raises(InvalidInputError, match="split the batch"):
        writer.write({"a": part, "b": part})


def test_names_that_are_not_utf_8_are_protocol_errors():
    # protobuf 4 parses them, and checks a name only when it is read
    data = predict.encode_response(ModelSpec("m", 1), {"\x80": np.zeros(1)}).replace(b"\xc2\x80", b"\0\x80")
    with pytest.raises(ProtocolError):
        predict.decode_response(data)
    data = predict.encode_request(ModelSpec("m"), {"\x80": np.zeros(1)}).replace(b"\xc2\x80", b"\0\x80")
    with pytest.raises(ProtocolError):
        predict.decode_request(data)


@given(st.lists(st.dictionaries(st.sampled_from("ab"), ARRAYS, max_size=2), max_size=4))
def test_a_writer_writes_the_same_with_and_without_its_cache(requests):
    spec = ModelSpec("m", label="l", signature="s")
    writer = predict.RequestWriter(spec, ["y"])
    for inputs in requests * 2:
        data = writer.write(inputs)
        assert data == predict.encode_request(spec, inputs, ["y"])
        assert predict.decode_request(data).outputs == ("y",)
