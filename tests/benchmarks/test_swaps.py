import pytest

from benchmarks.server.h2load import Load
from benchmarks.swaps import split_latencies


def test_calls_count_by_their_overlap_with_a_swap():
    loads = [Load(1.0, [0.1, 0.2, 0.3], [10.0, 10.9, 11.5]), Load(1.0, [0.4, 5.0], [11.9, 8.0])]
    found = split_latencies(loads, [(11.0, 12.0)], steady=2.0)
    # 10.9 ends within the swap, and 11.9 begins in it; 8.0 spans it
    assert sorted(found.during) == [0.2, 0.3, 0.4, 5.0]
    assert found.steady == [0.1]
    assert found.swaps == 1


def test_calls_between_the_time_before_a_swap_and_the_last_one_do_not_count():
    load = Load(1.0, [0.1, 0.1, 0.1], [12.5, 14.5, 16.5])
    found = split_latencies([load], [(11.0, 12.0), (15.0, 16.0)], steady=1.0)
    assert found.steady == [0.1]
    assert not found.during


def test_the_row_compares_the_99th_percentiles():
    load = Load(1.0, [0.1, 0.3], [10.0, 11.2])
    row = split_latencies([load], [(11.0, 12.0)], steady=2.0).row("swap")
    assert row.ratio == pytest.approx(3.0)
    assert not row.holds
