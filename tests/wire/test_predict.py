import contextlib

import numpy as np
import pytest
from arrays import ARRAYS, as_received, same
from hypothesis import given
from hypothesis import strategies as st

from tfserving.errors import InvalidInputError, ProtocolError
from tfserving.wire import messages, predict, tensors
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
def test_a_request_arrives_as_it_was_sent(spec, inputs, outputs):
    call = predict.decode_request(predict.encode_request(spec, inputs, outputs))
    assert call.spec == spec
    assert call.outputs == tuple(outputs)
    assert call.inputs.keys() == inputs.keys()
    assert all(same(call.inputs[name], as_received(array)) for name, array in inputs.items())


@given(SPECS, st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3), st.booleans())
def test_a_response_arrives_as_it_was_sent(spec, outputs, tensor_content):
    data = predict.encode_response(spec, outputs, tensor_content=tensor_content)
    got_spec, got = predict.decode_response(data)
    assert got_spec == spec
    assert got.keys() == outputs.keys()
    assert all(same(got[name], as_received(array)) for name, array in outputs.items())
    assert all(array.flags.writeable and array.flags.aligned for array in got.values())


@given(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=2), st.booleans())
def test_the_splice_and_protobuf_read_each_other(arrays, tensor_content):
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
    for decode in (predict.decode_request, predict.decode_response):
        with contextlib.suppress(ProtocolError):
            decode(data)


@given(st.data())
def test_a_damaged_message_reads_as_protobuf_reads_it(data):
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


def test_a_label_of_nothing_is_kept_apart_from_none():
    assert predict.decode_request(predict.encode_request(ModelSpec("m", label=""), {})).spec.label == ""
    assert predict.decode_request(predict.encode_request(ModelSpec("m"), {})).spec.label is None
    assert predict.decode_request(predict.encode_request(ModelSpec("m", version=0), {})).spec.version == 0


def test_a_message_over_two_gib_is_refused_before_it_is_built():
    huge = np.broadcast_to(np.zeros(1, np.uint8), (2**31,))
    with pytest.raises(InvalidInputError, match="split the batch"):
        predict._joined([_Sized(huge.nbytes)])


class _Sized(bytes):
    """Bytes that claim a length without the memory."""

    def __new__(cls, size):
        self = super().__new__(cls)
        self.size = size
        return self

    def __len__(self):
        return self.size
