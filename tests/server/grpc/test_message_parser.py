import threading
import time

import pytest

from tests.server.apis import examples
from tfserving.errors import ExhaustedError, InvalidInputError
from tfserving.server.grpc.message_parser import SLICE_BYTES, parse
from tfserving.wire import messages

ENOUGH = 10_000_000


def classification(*values, **spec):
    return messages.ClassificationRequest(model_spec=spec, input=examples(*values))


def many_small():
    return classification(*range(30_000), name="m")


def one_large_of_each_kind():
    request = classification(1, 2, name="m", signature_name="s")
    feature = request.input.example_list.examples[0].features.feature
    feature["bytes"].bytes_list.value.append(bytes(SLICE_BYTES + 1))
    feature["many"].bytes_list.value.extend([b"", b"ab"] * SLICE_BYTES)
    feature["floats"].float_list.value.extend([0.5] * SLICE_BYTES)
    feature["ints"].int64_list.value.extend([-1] * SLICE_BYTES)
    return request


def with_context():
    request = messages.MultiInferenceRequest(tasks=[{"model_spec": {"name": "m"}, "method_name": "x"}] * 9)
    both = request.input.example_list_with_context
    both.context.features.feature["c"].bytes_list.value.append(b"x" * SLICE_BYTES * 3)
    both.examples.extend(examples(*range(20_000)).example_list.examples)
    return request


def models():
    request = messages.ReloadConfigRequest()
    for number in range(9_000):
        entry = request.config.model_config_list.config.add(name=f"m{number}", base_path=f"/models/m{number}")
        entry.version_labels["stable"] = number
        entry.model_version_policy.specific.versions.extend([1, number])
    return request


def values_of_each_form():
    request = messages.PredictRequest(model_spec={"name": "m"}, output_filter=["y"] * SLICE_BYTES)
    for name, size in (("short", 3), ("long", 200)):
        request.inputs[name].string_val.extend([b"s" * size] * 5000)
        request.inputs[name].dtype = 7
    request.inputs["numbers"].float_val.extend([0.5] * SLICE_BYTES)
    return request


MAKERS = [many_small, one_large_of_each_kind, with_context, models, values_of_each_form]


@pytest.mark.parametrize("make", MAKERS)
def test_a_large_message_is_parsed_as_protobuf_does(make):
    request = make()
    data = request.SerializeToString()
    assert len(data) > SLICE_BYTES
    assert parse(type(request), data, ENOUGH) == request


def test_unpacked_numbers_are_parsed_as_protobuf_does():
    unpacked = b"\x2d\0\0\0\x3f" * SLICE_BYTES + b"\x2d\0\0"
    assert len(parse(messages.TensorProto, unpacked[:-3], ENOUGH).float_val) == SLICE_BYTES
    with pytest.raises(InvalidInputError):
        parse(messages.TensorProto, unpacked, ENOUGH)


def test_later_values_and_map_entries_replace_earlier_ones():
    first, second = one_large_of_each_kind(), one_large_of_each_kind()
    second.model_spec.name = "n"
    second.input.example_list.examples[0].features.feature["many"].bytes_list.value.append(b"more")
    kind = messages.Example
    both = b"".join(request.input.example_list.examples[0].SerializeToString() for request in (first, second))
    assert parse(kind, both, ENOUGH) == kind.FromString(both)
    both = first.SerializeToString() + second.SerializeToString()
    kind = messages.ClassificationRequest
    assert parse(kind, both, ENOUGH) == kind.FromString(both)


def test_unknown_fields_of_any_size_are_accepted():
    request = many_small()
    unknown = b"\xfa\x07\x80\x80\x40" + bytes(1 << 20)  # number 127
    data = unknown + request.SerializeToString() + b"\xf8\x07\x01\xfd\x07abcd\xf9\x07abcdefgh"
    assert parse(messages.ClassificationRequest, data, ENOUGH).input == request.input


@pytest.mark.parametrize("end", [b"\x12", b"\x12\x05abc", b"\x0c", b"\xff" * 11, b"\x0d\x00", b"\x07"])
@pytest.mark.parametrize("count", [1, 30_000])
def test_rejects_bytes_that_are_not_the_message(end, count):
    data = classification(*range(count)).SerializeToString() + end
    with pytest.raises(InvalidInputError, match=r"not a tensorflow.serving.ClassificationRequest"):
        parse(messages.ClassificationRequest, data, ENOUGH)


def test_rejects_more_fields_than_the_limit_before_they_are_parsed():
    data = many_small().SerializeToString()
    with pytest.raises(ExhaustedError, match=r"more than 1000 fields \(--grpc_max_message_fields\)"):
        parse(messages.ClassificationRequest, data, 1000)


def test_four_strings_count_as_one_field():
    data = messages.TensorProto(string_val=[b""] * 400_000).SerializeToString()
    assert len(parse(messages.TensorProto, data, 100_000).string_val) == 400_000
    with pytest.raises(ExhaustedError):
        parse(messages.TensorProto, data + b"\x42\0", 100_000)


def test_a_large_message_does_not_stop_other_threads():
    empty = b"\x0a\x00" * (4 << 20)
    data = b"\x12\x85\x80\x80\x04" + b"\x0a\x80\x80\x80\x04" + empty
    assert len(data) > 8e6
    ended, waits = threading.Event(), []

    def measure():
        while not ended.is_set():
            started = time.perf_counter()
            time.sleep(0.001)
            waits.append(time.perf_counter() - started)

    other = threading.Thread(target=measure)
    other.start()
    with pytest.raises(ExhaustedError):
        parse(messages.ClassificationRequest, data, 1_000_000)
    ended.set()
    other.join()
    assert max(waits) < 1
