import math
import threading

import pytest

from tfserving.server.observability.prometheus_text import Registry, exponential


@pytest.fixture
def registry():
    return Registry()


def lines(registry):
    return registry.text().decode().splitlines()


def test_a_counter_keeps_its_name(registry):
    family = registry.counter(":a:b", "What it counts.", "model", "status")
    family.series("m", "OK").add()
    family.series("m", "OK").add(2)
    family.series("n", "NOT_FOUND").add()
    assert lines(registry) == [
        "# HELP :a:b What it counts.",
        "# TYPE :a:b counter",
        ':a:b{model="m",status="OK"} 3',
        ':a:b{model="n",status="NOT_FOUND"} 1',
    ]


def test_a_gauge_goes_both_ways(registry):
    series = registry.gauge("g", "Help.").series()
    series.add(2)
    series.add(-3)
    assert lines(registry)[-1] == "g{} -1"
    series.set(0.25)
    assert lines(registry)[-1] == "g{} 0.25"


def test_a_histogram_counts_cumulatively(registry):
    series = registry.histogram("h", "Help.", "model", bounds=(1, 2.5, 1e6)).series("m")
    for value in (0, 1, 2, 2.5, 2.6, 1e6, 1e7):
        series.observe(value)
    assert lines(registry) == [
        "# HELP h Help.",
        "# TYPE h histogram",
        'h_bucket{model="m",le="1"} 2',
        'h_bucket{model="m",le="2.5"} 4',
        'h_bucket{model="m",le="1e+06"} 6',
        'h_bucket{model="m",le="+Inf"} 7',
        'h_sum{model="m"} 11000008.1',
        'h_count{model="m"} 7',
    ]


def test_a_histogram_without_labels(registry):
    registry.histogram("h", "Help.", bounds=(1,)).series().observe(1)
    assert lines(registry)[2:] == ['h_bucket{le="1"} 1', 'h_bucket{le="+Inf"} 1', "h_sum{} 1", "h_count{} 1"]


def test_a_metric_without_series_is_still_listed(registry):
    registry.counter("c", "Help.", "model")
    assert lines(registry) == ["# HELP c Help.", "# TYPE c counter"]


def test_no_value_of_a_label_breaks_out(registry):
    family = registry.counter("c", "Back\\slash\nand line.", "name")
    family.series('a"} 1\nevil{x="\\').add()
    assert lines(registry) == [
        "# HELP c Back\\\\slash\\nand line.",
        "# TYPE c counter",
        'c{name="a\\"} 1\\nevil{x=\\"\\\\"} 1',
    ]


def test_labels_must_be_complete(registry):
    family = registry.counter("c", "Help.", "model", "status")
    with pytest.raises(ValueError, match="'status'"):
        family.series("m")


def test_with_a_limit_the_series_goes_that_was_longest_without_news(registry):
    family = registry.counter("c", "Help.", "path", limit=2)
    for path in "abac":
        family.series(path).add()
    assert lines(registry)[2:] == ['c{path="a"} 2', 'c{path="c"} 1']


def test_series_can_be_forgotten(registry):
    family = registry.counter("c", "Help.", "model", "version")
    for version in "12":
        family.series("m", version).add()
    family.forget(lambda labels: labels[1] == "1")
    assert lines(registry)[2:] == ['c{model="m",version="2"} 1']


def test_threads_lose_no_count(registry):
    counter = registry.counter("c", "Help.", "x")
    histogram = registry.histogram("h", "Help.", bounds=(1,)).series()

    def work():
        for _ in range(5000):
            counter.series("a").add()
            histogram.observe(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        registry.text()
    assert 'c{x="a"} 40000' in lines(registry)
    assert "h_count{} 40000" in lines(registry)


def test_the_bounds_of_the_real_server():
    bounds = exponential(10, 1.8, 33)
    assert len(bounds) == 33
    # the first are those of tensorflow/serving issue 1959, the others stand in published dashboards of it
    assert [f"{bound:g}" for bound in bounds[:3]] == ["10", "18", "32.4"]
    assert {"708235", "2.52873e+08"} <= {f"{bound:g}" for bound in bounds}
    assert math.isclose(bounds[-1], 10 * 1.8**32)
