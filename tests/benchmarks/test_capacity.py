"""The simulation of the capacity guide against results of queueing theory."""

import math
import random
import re
import statistics
import subprocess
import sys

import pytest

from tests.embedded import ROOT

pytest.importorskip("simpy", reason="simpy is not installed; install requirements.txt")

from benchmarks.capacity import simulation
from benchmarks.capacity.simulation import Scenario, constant, exponential, percentile, simulate

CALLS = 40_000


def mean_of(scenario, seed=1):
    return statistics.mean(simulate(scenario, CALLS, seed))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_latency_of_one_server_with_exponential_times(load):
    # M/M/1: 1 / (mu - lambda)
    assert mean_of(Scenario(1, load, exponential(1.0))) == pytest.approx(1 / (1 - load), rel=0.06)


def test_percentiles_of_one_server_with_exponential_times():
    # M/M/1: the latency is exponentially distributed
    latencies = simulate(Scenario(1, 0.5, exponential(1.0)), CALLS, seed=1)
    for percent in (50, 90, 99):
        expected = -math.log(1 - percent / 100) / 0.5
        assert percentile(latencies, percent) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_latency_of_one_server_with_constant_times(load):
    # M/D/1: 1 / mu + rho / (2 mu (1 - rho))
    expected = 1 + load / (2 * (1 - load))
    assert mean_of(Scenario(1, load, constant(1.0))) == pytest.approx(expected, rel=0.05)


def test_mean_latency_of_a_server_that_runs_several_calls():
    # M/M/c: Erlang's C formula
    count, load = 4, 0.8
    offered = count * load
    busy = offered**count / math.factorial(count) / (1 - load)
    waits = busy / (sum(offered**k / math.factorial(k) for k in range(count)) + busy)
    expected = 1 + waits / (count - offered)
    scenario = Scenario(1, offered, exponential(1.0), at_the_same_time=count)
    assert mean_of(scenario) == pytest.approx(expected, rel=0.06)


def test_round_robin_of_many_clients_makes_servers_independent():
    # each server is an M/M/1 queue
    scenario = Scenario(8, 8 * 0.7, exponential(1.0), "round robin", clients=200)
    assert mean_of(scenario) == pytest.approx(1 / 0.3, rel=0.08)


def test_round_robin_of_one_client_spreads_calls_evenly():
    # one client gives each of two servers every second call: E2/M/1, whose latency is 1 / (mu (1 - s))
    # where s solves s = (2 lambda / (2 lambda + mu (1 - s)))^2
    load, s = 0.7, 0.5
    for _ in range(200):
        s = (2 * load / (2 * load + 1 - s)) ** 2
    assert mean_of(Scenario(2, 2 * load, exponential(1.0))) == pytest.approx(1 / (1 - s), rel=0.06)


def test_power_of_two_choices_agrees_with_the_limit_for_many_servers():
    # Mitzenmacher: the mean number of calls at a server is the sum of rho^(2^i - 1)
    load = 0.8
    in_system = sum(load ** (2**i - 1) for i in range(1, 12))
    scenario = Scenario(200, 200 * load, exponential(1.0), "power of two choices")
    assert mean_of(scenario) == pytest.approx(in_system / load, rel=0.05)


def test_pick_first_leaves_servers_idle():
    latencies = simulate(Scenario(4, 0.5, constant(1.0), "pick first"), CALLS, seed=1)
    alone = simulate(Scenario(1, 0.5, constant(1.0)), CALLS, seed=1)
    assert statistics.mean(latencies) == pytest.approx(statistics.mean(alone), rel=0.05)


def test_policies_that_count_calls_have_shorter_tails():
    tails = {
        policy: percentile(simulate(Scenario(32, 32 * 0.8, exponential(1.0), policy), CALLS, seed=1), 99)
        for policy in ("round robin", "power of two choices", "least request")
    }
    assert tails["least request"] < tails["power of two choices"] < tails["round robin"]


def test_the_same_seed_gives_the_same_latencies():
    scenario = Scenario(4, 3.0, exponential(1.0), "least request", clients=3)
    assert simulate(scenario, 500, seed=7) == simulate(scenario, 500, seed=7)
    assert simulate(scenario, 500, seed=7) != simulate(scenario, 500, seed=8)


def test_percentile_is_a_value_that_occurs():
    values = list(range(1, 101))
    assert [percentile(values, percent) for percent in (0, 1, 50, 99, 99.5, 100)] == [1, 1, 50, 99, 100, 100]


def test_measured_times_are_scaled_to_a_mean():
    draw = simulation.measured([1.0, 3.0], mean=4.0)
    rng = random.Random(0)
    assert {draw(rng) for _ in range(50)} == {2.0, 6.0}


def test_finds_the_smallest_number_of_servers():
    def scenario(servers):
        return Scenario(servers, 10.0, exponential(1.0), "least request")

    found = simulation.find_servers(scenario, 6.0, 99, 4000, at_least=10)
    tails = [percentile(simulate(scenario(n), 4000, seed=n), 99) for n in (found - 1, found)]
    assert tails[1] <= 6.0 < tails[0]


def test_reports_that_no_number_is_enough():
    def scenario(servers):
        return Scenario(servers, 1.0, constant(1.0))

    assert simulation.find_servers(scenario, 0.5, 99, 100, at_least=1) is None


@pytest.mark.tensorflow
def test_a_quick_run_has_the_tables_of_the_committed_results(tmp_path):
    command = [sys.executable, "-m", "benchmarks.capacity", "--quick", "--measure", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_first_cells(tmp_path / "capacity.md") <= read_first_cells(ROOT / "benchmarks" / "capacity.md")
    for name in ("capacity.json", "capacity.png", "capacity-replicas.png"):
        assert (tmp_path / name).stat().st_size > 1000


def read_first_cells(page):
    return {line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("| ")}


@pytest.mark.parametrize("language", ["", ".zh"])
def test_the_guide_has_the_numbers_of_the_committed_results(language):
    pages = [ROOT / "benchmarks" / "capacity.md", ROOT / "docs" / "guide" / f"capacity{language}.md"]
    results, guide = (read_numbers(page) for page in pages)
    assert guide
    assert guide <= results


def read_numbers(page):
    """Read the cells with numbers of each row of a table that has several."""
    rows = set()
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        numbers = tuple(cell for cell in cells if re.fullmatch(r"(?:[\d,.%∞()✗ ]|ms|to)+", cell))
        if len(numbers) > 2:
            rows.add(numbers)
    return rows
