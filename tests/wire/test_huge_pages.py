import sys

import numpy as np
import pytest

from tfserving.wire import huge_pages, predict
from tfserving.wire.model_spec import ModelSpec


@pytest.mark.parametrize(
    "size", [0, 10, 2**18, huge_pages.LARGE - 100, huge_pages.LARGE, huge_pages.LARGE + 12345]
)
def test_it_is_the_join(size):
    values = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    parts = [b"head", values, b"", values[: size // 2], b"tail"]
    expected = b"".join(part if isinstance(part, bytes) else part.tobytes() for part in parts)
    got = huge_pages.join(parts, len(expected))
    assert type(got) is bytes
    assert got == expected
    assert hash(got) == hash(expected)


def test_where_memory_cannot_be_had_this_way_it_is_still_the_join(monkeypatch):
    monkeypatch.setattr(sys, "platform", "elsewhere")
    huge_pages._allocator.cache_clear()
    try:
        values = np.arange(huge_pages.LARGE, dtype=np.uint8)
        assert huge_pages.join([b"a", values], 1 + values.nbytes) == b"a" + values.tobytes()
        assert huge_pages._allocator() is None
    finally:
        huge_pages._allocator.cache_clear()


def test_a_large_request_arrives_as_it_was_sent():
    inputs = {"x": np.random.default_rng(0).random((32, 224, 224, 3), np.float32), "y": np.zeros(3)}
    call = predict.decode_request(predict.encode_request(ModelSpec("m"), inputs, ["out"]))
    assert call.outputs == ("out",)
    assert all(np.array_equal(call.inputs[name], array) for name, array in inputs.items())
