"""The metrics that a scrape gets: names, types and labels of the real server, over both APIs; and our own."""

import csv
import re
from pathlib import Path

import pytest

from tests.server.apis import examples, predict_request, serve
from tests.server.fake_loader import FakeLoader
from tfserving.errors import ConfigError, NotFoundError, TfServingError
from tfserving.server.batching import BatchingLoader, BatchingParameters
from tfserving.server.core.servable_state import State, VersionStatus
from tfserving.server.observability.call_context import GRPC, REST, Call
from tfserving.server.observability.metrics import NEVER_SET, Metrics
from tfserving.server.observability.observers import observation
from tfserving.wire import messages, services
from tfserving.wire.model_spec import ModelSpec

REAL = Path(__file__).parents[2] / "conformance" / "metrics.tsv"
PATH = "/monitoring/prometheus/metrics"


def real_metrics():
    with REAL.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


class Scrape:
    """A scraped page: values by name and labels, types by name."""

    def __init__(self, text):
        self.types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
        self.values = {}
        for name, labels, value in re.findall(r"^([^#\s{]+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)
            self.values[name, frozenset(pairs)] = float(value)

    def value(self, name, **labels):
        return self.values.get((name, frozenset(labels.items())), 0)

    def labels(self, name):
        """The sets of label names that series of a metric have."""
        names = {name, *(f"{name}_{end}" for end in ("bucket", "sum", "count"))}
        return {
            frozenset(label for label, _ in labels if label != "le")
            for found, labels in self.values
            if found in names
        }


class FakeModels:
    """A manager's answers to what metrics ask."""

    def __init__(self, **statuses):
        self.statuses = statuses

    def models(self):
        return set(self.statuses)

    def status(self, model):
        if not self.statuses[model]:
            raise NotFoundError(model)
        return self.statuses[model]


@pytest.fixture
def metrics():
    metrics = Metrics()
    metrics.watch(FakeModels(m=[VersionStatus(3, State.AVAILABLE)]))
    return metrics


def scrape(metrics):
    return Scrape(metrics.text().decode())


def call(metrics, model="m", version=3, signature="serving_default", method="Predict", api=GRPC, error=None):
    """Has a call counted."""
    try:
        with Call([metrics], api, method) as told:
            told.asked = ModelSpec(model)
            told.version, told.signature = version, signature
            told.run_seconds = None if error else 0.0001
            if error:
                raise error
    except TfServingError:
        pass


@pytest.fixture(scope="module")
def watching(tmp_path_factory):
    config = tmp_path_factory.mktemp("metrics") / "monitoring.config"
    config.write_text("prometheus_config { enable: true }")
    return observation(str(config))


@pytest.fixture(scope="module")
def apis(in_loop, watching):
    """Both APIs, watched; calls are joined, and there was one of each kind."""
    metrics = watching.metrics
    parameters = BatchingParameters(allowed_batch_sizes=(4, 1000))
    loader = BatchingLoader(FakeLoader(), parameters, metrics.batching)
    with serve(in_loop, watching.observers, watching.pages, loader=loader) as apis:
        metrics.watch(apis.manager)
        metrics.runtime.loaded(Path("/models/m/3"), 0.5)
        metrics.runtime.warmed_up(Path("/models/m/3"), 2, 0.25)
        metrics.runtime.graph_ran(0.001)
        # a batch cannot have the scalar output, a row of JSON neither
        assert apis.call(services.PREDICT, predict_request(outputs=["y"]))
        assert apis.call(services.PREDICT, predict_request("nobody")) is None
        classify = messages.ClassificationRequest(model_spec={"name": "m", "signature_name": "classify"})
        classify.input.CopyFrom(examples(1.0, 2.0, 3.0))
        assert apis.call(services.CLASSIFY, classify)
        body = {"signature_name": "regress", "examples": [{"x": 1.0}]}
        assert apis.rest.ask("POST", "/v1/models/m:regress", body).status == 200
        assert apis.rest.predict({"instances": ["a"]}).status == 400
        assert apis.rest.ask("GET", "/v1/models/m").status == 200
        yield apis


@pytest.fixture
def scraped(apis):
    answer = apis.rest.ask("GET", PATH)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(answer.body.decode())


@pytest.mark.parametrize("real", real_metrics(), ids=lambda real: real["metric"])
def test_a_metric_of_the_real_server(real, scraped):
    name = real["metric"]
    assert scraped.types[name] == real["type"]
    if name in NEVER_SET:
        assert not scraped.labels(name)
    else:
        (labels,) = scraped.labels(name)
        # where none is recorded, the recorded server had no series to show any
        assert labels == frozenset(real["labels"].split(",")) or not real["labels"]


def test_what_is_no_metric_of_the_real_server_is_named_as_ours(scraped):
    ours = scraped.types.keys() - {real["metric"] for real in real_metrics()}
    assert all(name.startswith("tfserving_") for name in ours)


def test_requests_are_counted_as_in_the_real_server(scraped):
    def requests(**labels):
        return scraped.value(":tensorflow:serving:request_count", **labels)

    assert requests(model_name="m", status="OK") == 4
    assert requests(model_name="m", status="INVALID_ARGUMENT") == 1

    def answered(**labels):
        return scraped.value(":tensorflow:serving:request_latency_count", model_name="m", **labels)

    assert answered(API="Predict", entrypoint="GRPC") == 1
    assert answered(API="Classify", entrypoint="GRPC") == 1
    assert answered(API="regress", entrypoint="REST") == 1
    assert answered(API="", entrypoint="REST") == 1  # the status
    assert answered(API="predict", entrypoint="REST") == 0  # failures are left out


def test_runs_and_examples(scraped):
    run = ":tensorflow:serving:runtime_latency_count"
    for api in ("Predict", "Classify", "Regress"):
        assert scraped.value(run, model_name="m", API=api, runtime="TF1") == 1
    assert scraped.value(":tensorflow:serving:request_example_count_total", model="m") == 4
    assert scraped.value(":tensorflow:serving:request_example_counts_count", model="m") == 2


def test_batches(scraped):
    batching = ":tensorflow:serving:batching_session:"
    assert scraped.value(f"{batching}input_batch_size_sum") == 2 + 3 + 1
    assert scraped.value(f"{batching}processed_batch_size_sum") == 3 * 4
    assert scraped.value(f"{batching}padding_size_sum", execution_batch_size="4") == 2 + 1 + 3
    assert scraped.value(f"{batching}queuing_latency_count", thread_pool_name="") == 3
    assert scraped.value(f"{batching}wrapped_run_count") == 3


def test_loads_and_warmup(scraped):
    path = {"model_path": "/models/m/3"}
    assert scraped.value(":tensorflow:cc:saved_model:load_attempt_count", **path, status="success") == 1
    assert scraped.value(":tensorflow:cc:saved_model:load_latency", **path) == 500_000
    assert scraped.value(":tensorflow:serving:model_warmup_latency_sum", **path, status="OK") == 250_000
    assert scraped.value(":tensorflow:serving:model_warmup_records_read", **path) == 2
    assert scraped.value(":tensorflow:core:graph_runs") == 1
    assert scraped.value(":tensorflow:core:graph_run_time_usecs") == 1000


def test_requests_by_version_and_signature(scraped):
    name = "tfserving_requests_total"
    answered = {"model_name": "m", "version": "3"}
    grpc, rest = {"api": "GRPC"}, {"api": "REST"}
    default = {"signature": "serving_default", "method": "Predict"}
    assert scraped.value(name, **answered, **grpc, **default, status="OK") == 1
    assert scraped.value(name, **answered, **rest, **default, status="INVALID_ARGUMENT") == 1
    classify = {"signature": "classify", "method": "Classify"}
    assert scraped.value(name, **answered, **grpc, **classify, status="OK") == 1
    assert scraped.value("tfserving_request_latency_seconds_count", **answered, **grpc, **classify) == 1
    status = {"version": "", "signature": "", "method": "GetModelStatus", "status": "OK"}
    assert scraped.value(name, model_name="m", **rest, **status) == 1


def test_the_states_of_versions(scraped):
    version = {"model_name": "m", "version": "3"}
    for state in State:
        expected = state is State.AVAILABLE
        assert scraped.value("tfserving_model_state", **version, state=state.name) == expected
    assert len([1 for name, _ in scraped.values if name == "tfserving_model_state"]) == len(State)


def test_nothing_is_in_flight_and_the_scrape_itself_does_not_count(apis, scraped):
    again = Scrape(apis.rest.ask("GET", f"{PATH}?name=x").body.decode())
    for api in ("GRPC", "REST"):
        assert again.value("tfserving_requests_in_flight", api=api) == 0
    ours = {key: value for key, value in again.values.items() if key[0] == "tfserving_requests_total"}
    assert ours == {key: scraped.values[key] for key in ours}


def test_callers_make_no_labels(apis, scraped):
    """What does not exist counts once, whatever the caller calls it."""
    for number in range(5):
        assert apis.call(services.PREDICT, predict_request(f"no{number}")) is None
        assert apis.call(services.PREDICT, predict_request(version=100 + number)) is None
        assert apis.call(services.PREDICT, predict_request(signature=f"no{number}")) is None
        assert apis.rest.ask("GET", f"/v1/models/no{number}").status == 404
        assert apis.rest.ask(f"METHOD{number}", "/v1/models/m").status == 400
    again = Scrape(apis.rest.ask("GET", PATH).body.decode())
    for name, labels in again.values.keys() - scraped.values.keys():
        for label, value in labels:
            assert not re.search(r"no\d|10\d|METHOD", value), (name, label, value)
    refused = {"version": "", "signature": "", "api": "GRPC", "method": "Predict", "status": "NOT_FOUND"}
    assert again.value("tfserving_requests_total", model_name="", **refused) == 1 + 5
    assert again.value("tfserving_requests_total", model_name="m", **refused) == 5
    without_signature = refused | {"version": "3", "status": "FAILED_PRECONDITION"}
    assert again.value("tfserving_requests_total", model_name="m", **without_signature) == 5


def test_nothing_is_kept_of_names_that_callers_invent(metrics):
    for number in range(100):
        call(metrics, f"no{number}", None, "", error=NotFoundError("none"))
    assert not metrics._outcomes
    found = scrape(metrics).values
    assert len([1 for name, _ in found if name == "tfserving_requests_total"]) == 1


def test_without_models_every_model_is_unknown():
    metrics = Metrics()
    call(metrics)
    assert scrape(metrics).value(":tensorflow:serving:request_count", model_name="", status="OK") == 1


def test_failures_have_their_status_and_no_latency(metrics):
    call(metrics, error=TfServingError("no room", code="RESOURCE_EXHAUSTED"))
    scraped = scrape(metrics)
    refused = {"model_name": "m", "status": "RESOURCE_EXHAUSTED"}
    assert scraped.value(":tensorflow:serving:request_count", **refused) == 1
    assert not scraped.labels(":tensorflow:serving:request_latency")
    assert not scraped.labels("tfserving_request_latency_seconds")


@pytest.mark.parametrize("method", ["MultiInference", "GetModelMetadata", "HandleReloadConfigRequest"])
def test_the_real_server_does_not_count_these_over_grpc(metrics, method):
    call(metrics, method=method)
    scraped = scrape(metrics)
    assert not scraped.labels(":tensorflow:serving:request_count")
    assert scraped.labels("tfserving_requests_total")


def test_calls_in_flight(metrics):
    with Call([metrics], REST):
        assert scrape(metrics).value("tfserving_requests_in_flight", api="REST") == 1
    assert scrape(metrics).value("tfserving_requests_in_flight", api="REST") == 0


def test_latencies_are_in_the_unit_of_their_metric(metrics):
    with Call([metrics], GRPC, "Predict") as told:
        told.asked, told.version, told.signature = ModelSpec("m"), 3, "s"
        told.began -= 2
    scraped = scrape(metrics)
    seconds = [
        v for (name, _), v in scraped.values.items() if name == "tfserving_request_latency_seconds_sum"
    ]
    micros = [
        v for (name, _), v in scraped.values.items() if name == ":tensorflow:serving:request_latency_sum"
    ]
    assert seconds[0] >= 2
    assert micros[0] == pytest.approx(seconds[0] * 1e6)


def test_versions_that_ended_long_ago_are_forgotten(metrics):
    models = FakeModels(m=[VersionStatus(1, State.AVAILABLE)])
    metrics.watch(models)
    call(metrics, version=1)
    call(metrics, version=None, signature="", error=NotFoundError("none"))
    ended = [VersionStatus(version, State.END) for version in range(30, 20, -1)]
    models.statuses["m"] = [*ended, VersionStatus(1, State.END)]

    def shown(name):
        found = {dict(labels)["version"] for series, labels in scrape(metrics).values if series == name}
        return sorted(found, key=lambda version: int(version or 0))

    assert shown("tfserving_model_state") == [str(version) for version in range(21, 31)]
    assert shown("tfserving_requests_total") == [""]
    assert shown("tfserving_request_latency_seconds_count") == []
    call(metrics, version=30)
    assert shown("tfserving_requests_total") == ["", "30"]


def test_a_model_without_versions_has_no_state(metrics):
    metrics.watch(FakeModels(m=[]))
    assert not scrape(metrics).labels("tfserving_model_state")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("prometheus_config { enable: true }", PATH),
        ('prometheus_config { enable: true path: "/metrics" }', "/metrics"),
        ('prometheus_config: { path: "/metrics" }', ""),
        ("", ""),
    ],
)
def test_the_monitoring_configuration(tmp_path, text, path):
    file = tmp_path / "monitoring.config"
    file.write_text(text)
    watching = observation(str(file))
    assert watching.metrics_path == path
    assert [page.path for page in watching.pages] == ([path] if path else [])
    assert bool(watching.observers) == bool(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prometheus { enable: true }", "prometheus"),
        ('prometheus_config { enable: true path: "metrics" }', "must begin with /"),
        (None, "No such file"),
    ],
)
def test_a_monitoring_configuration_that_cannot_be_used(tmp_path, text, said):
    file = tmp_path / "monitoring.config"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        observation(str(file))
    assert f"--monitoring_config_file={file}" in str(caught.value)


def test_without_the_flag_there_is_no_page(in_loop):
    watching = observation()
    assert not watching.observers
    with serve(in_loop, watching.observers, watching.pages) as apis:
        assert apis.rest.ask("GET", PATH).status == 404
