import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfserving.server.rest.float32_digits import round_to_digits

FLOAT32 = st.floats(width=32)


def expected(value):
    """What tensorflow_model_server writes: six digits if they identify the float32 number, else nine."""
    six_digits = float(f"{value:.6g}")
    with np.errstate(over="ignore"):
        return six_digits if np.float32(six_digits) == value else float(f"{value:.9g}")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1 / 3, "0.333333343"),
        (9_000_000, "9000000.0"),
        (16_777_216, "16777216.0"),
        (1_234_567.125, "1234567.12"),
        (123_456.789, "123456.789"),
        (1e-20, "1e-20"),
        (1.1e-38, "1.1e-38"),
        (2e9 / 3, "666666688.0"),
        (-1e30 / 3, "-3.33333338e+29"),
        (-0.0, "-0.0"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_rounds_to_six_or_nine_digits(value, text, size):
    rounded = round_to_digits(np.full(size, value, np.float32))
    assert set(map(repr, rounded.tolist())) == {text}


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3, 1), (2, 3, 4), (100, 200)])
def test_keeps_the_shape(shape):
    rounded = round_to_digits(np.full(shape, 0.1, np.float32))
    assert rounded.shape == shape
    assert rounded.dtype == np.float64
    assert (rounded == 0.1).all()


@given(hnp.arrays(np.float32, st.integers(0, 40), elements=FLOAT32))
def test_any_number_stays_the_same_float32(array):
    rounded = round_to_digits(array)
    np.testing.assert_array_equal(rounded.astype(np.float32), array)
    np.testing.assert_array_equal(rounded, np.array(list(map(expected, array.tolist()))))


def test_an_array_of_several_blocks_is_rounded_like_its_parts():
    array = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    np.testing.assert_array_equal(round_to_digits(array), np.array(list(map(expected, array.tolist()))))
