import sys

import numpy as np
import pytest

from tfserving.wire import huge_pages, predict
from tfserving.wire.model_spec import ModelSpec


@pytest.mark.parametrize(
    "size", [0, 10, 2**18, huge_pages.LARGE - 100, huge_pages.LARGE, huge_pages.LARGE + 12345]
)
def test_joins_bytes_and_arrays_of_any_size(size):
    values = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    parts = [b"head", values, b"", values[: size // 2], b"tail"]
    expected = b"".join(part if isinstance(part, bytes) else part.tobytes() for part in parts)
    got = huge_pages.join_buffers(parts, len(expected))
    assert type(got) is bytes
    assert got == expected
    assert hash(got) == hash(expected)


def test_joins_without_huge_pages_on_other_platforms(monkeypatch):
    monkeypatch.setattr(sys, "platform", "elsewhere")
    huge_pages.find_allocator.cache_clear()
    try:
        values = np.arange(huge_pages.LARGE, dtype=np.uint8)
        assert huge_pages.join_buffers([b"a", values], 1 + values.nbytes) == b"a" + values.tobytes()
        assert huge_pages.find_allocator() is None
    finally:
        huge_pages.find_allocator.cache_clear()


def test_a_large_request_survives_a_round_trip():
    inputs = {"x": np.random.default_rng(0).random((32, 224, 224, 3), np.float32), "y": np.zeros(3)}
    call = predict.decode_request(predict.encode_request(ModelSpec("m"), inputs, ["out"]))
    assert call.outputs == ("out",)
    assert all(np.array_equal(call.read()[name], array) for name, array in inputs.items())
