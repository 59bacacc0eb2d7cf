"""Scraped metrics: names, types and labels of tensorflow_model_server, and our own."""

import re
import socket
from pathlib import Path

import pytest

from tests.server.apis import examples, predict_request, serve
from tests.server.fake_loader import FakeLoader
from tests.server.recorded_metrics import NEVER_SET, recorded_metrics
from tfserving.errors import ConfigError, NotFoundError, TfServingError
from tfserving.server.batching.batching_servable import BatchingLoader
from tfserving.server.batching.parameters import BatchingParameters
from tfserving.server.core.servable_state import ServableStatus, State
from tfserving.server.observability.metrics import Metrics
from tfserving.server.observability.observability import Observability
from tfserving.server.request_context import GRPC, REST, RequestContext
from tfserving.server.server_options import ObservabilityOptions
from tfserving.wire import messages, services
from tfserving.wire.model_spec import ModelSpec

PATH = "/monitoring/prometheus/metrics"


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
    """The states that a manager reports."""

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
    metrics.set_models(FakeModels(m=[ServableStatus(3, State.AVAILABLE)]))
    return metrics


def scrape(metrics):
    return Scrape(metrics.text().decode())


def call(metrics, model="m", version=3, signature="serving_default", method="Predict", api=GRPC, error=None):
    """Counts a request."""
    try:
        with RequestContext(api, method, observers=[metrics]) as context:
            context.requested_spec = ModelSpec(model)
            context.version, context.signature = version, signature
            context.run_seconds = None if error else 0.0001
            if error:
                raise error
    except TfServingError:
        pass


@pytest.fixture(scope="module")
def observers_of_flags(tmp_path_factory):
    config = tmp_path_factory.mktemp("metrics") / "monitoring.config"
    config.write_text("prometheus_config { enable: true }")
    return Observability(ObservabilityOptions(monitoring_config_file=str(config)))


@pytest.fixture(scope="module")
def apis(in_loop, observers_of_flags):
    """Both APIs with metrics and batching, after a request of each kind."""
    metrics = observers_of_flags.metrics
    parameters = BatchingParameters(allowed_batch_sizes=(4, 1000))
    loader = BatchingLoader(FakeLoader(), parameters, metrics.batching)
    with serve(in_loop, observers_of_flags.observers, observers_of_flags.page, loader=loader) as apis:
        metrics.set_models(apis.manager)
        metrics.runtime.count_load(Path("/models/m/3"), 0.5)
        metrics.runtime.count_warmup(Path("/models/m/3"), 2, 0.25)
        metrics.runtime.count_graph_run(0.001)
        # neither a batch nor a row of JSON can have the scalar output
        assert apis.call(services.PREDICT, predict_request(outputs=["y"]))
        assert apis.call(services.PREDICT, predict_request("nobody")) is None
        classify = messages.ClassificationRequest(model_spec={"name": "m", "signature_name": "classify"})
        classify.input.CopyFrom(examples(1.0, 2.0, 3.0))
        assert apis.call(services.CLASSIFY, classify)
        body = {"signature_name": "regress", "examples": [{"x": 1.0}]}
        assert apis.rest.send("POST", "/v1/models/m:regress", body).status == 200
        assert apis.rest.predict({"instances": ["a"]}).status == 400
        assert apis.rest.send("GET", "/v1/models/m").status == 200
        yield apis


@pytest.fixture
def scraped(apis):
    response = apis.rest.send("GET", PATH)
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(response.body.decode())


@pytest.mark.parametrize("real", recorded_metrics(), ids=lambda real: real["metric"])
def test_a_recorded_metric_has_its_type_and_labels(real, scraped):
    name = real["metric"]
    assert scraped.types[name] == real["type"]
    if name in NEVER_SET:
        assert not scraped.labels(name)
    else:
        (labels,) = scraped.labels(name)
        # the recorded server had no series of a metric without recorded labels
        assert labels == frozenset(real["labels"].split(",")) or not real["labels"]


def test_all_other_metrics_have_our_prefix(scraped):
    ours = scraped.types.keys() - {real["metric"] for real in recorded_metrics()}
    assert all(name.startswith("tfserving_") for name in ours)


def test_requests_are_counted_as_in_tensorflow_model_server(scraped):
    def requests(**labels):
        return scraped.value(":tensorflow:serving:request_count", **labels)

    assert requests(model_name="m", status="OK") == 4
    assert requests(model_name="m", status="INVALID_ARGUMENT") == 1

    def counted(**labels):
        return scraped.value(":tensorflow:serving:request_latency_count", model_name="m", **labels)

    assert counted(API="Predict", entrypoint="GRPC") == 1
    assert counted(API="Classify", entrypoint="GRPC") == 1
    assert counted(API="regress", entrypoint="REST") == 1
    assert counted(API="", entrypoint="REST") == 1  # the status
    assert counted(API="predict", entrypoint="REST") == 0  # failures are not included


def test_model_runs_and_examples_are_counted(scraped):
    run = ":tensorflow:serving:runtime_latency_count"
    for api in ("Predict", "Classify", "Regress"):
        assert scraped.value(run, model_name="m", API=api, runtime="TF1") == 1
    assert scraped.value(":tensorflow:serving:request_example_count_total", model="m") == 4
    assert scraped.value(":tensorflow:serving:request_example_counts_count", model="m") == 2


def test_batches_are_counted(scraped):
    batching = ":tensorflow:serving:batching_session:"
    assert scraped.value(f"{batching}input_batch_size_sum") == 2 + 3 + 1
    assert scraped.value(f"{batching}processed_batch_size_sum") == 3 * 4
    assert scraped.value(f"{batching}padding_size_sum", execution_batch_size="4") == 2 + 1 + 3
    assert scraped.value(f"{batching}queuing_latency_count", thread_pool_name="") == 3
    assert scraped.value(f"{batching}wrapped_run_count") == 3


def test_loads_and_warmup_are_counted(scraped):
    path = {"model_path": "/models/m/3"}
    assert scraped.value(":tensorflow:cc:saved_model:load_attempt_count", **path, status="success") == 1
    assert scraped.value(":tensorflow:cc:saved_model:load_latency", **path) == 500_000
    assert scraped.value(":tensorflow:serving:model_warmup_latency_sum", **path, status="OK") == 250_000
    assert scraped.value(":tensorflow:serving:model_warmup_records_read", **path) == 2
    assert scraped.value(":tensorflow:core:graph_runs") == 1
    assert scraped.value(":tensorflow:core:graph_run_time_usecs") == 1000


def test_requests_are_counted_by_version_and_signature(scraped):
    name = "tfserving_requests_total"
    counted = {"model_name": "m", "version": "3"}
    grpc, rest = {"api": "GRPC"}, {"api": "REST"}
    default = {"signature": "serving_default", "method": "Predict"}
    assert scraped.value(name, **counted, **grpc, **default, status="OK") == 1
    assert scraped.value(name, **counted, **rest, **default, status="INVALID_ARGUMENT") == 1
    classify = {"signature": "classify", "method": "Classify"}
    assert scraped.value(name, **counted, **grpc, **classify, status="OK") == 1
    assert scraped.value("tfserving_request_latency_seconds_count", **counted, **grpc, **classify) == 1
    status = {"version": "", "signature": "", "method": "GetModelStatus", "status": "OK"}
    assert scraped.value(name, model_name="m", **rest, **status) == 1


def test_a_version_has_one_state(scraped):
    version = {"model_name": "m", "version": "3"}
    for state in State:
        expected = state is State.AVAILABLE
        assert scraped.value("tfserving_model_state", **version, state=state.name) == expected
    assert len([1 for name, _ in scraped.values if name == "tfserving_model_state"]) == len(State)


def test_a_scrape_is_not_counted_as_a_request(apis, scraped):
    again = Scrape(apis.rest.send("GET", f"{PATH}?name=x").body.decode())
    for api in ("GRPC", "REST"):
        assert again.value("tfserving_requests_in_flight", api=api) == 0
    ours = {key: value for key, value in again.values.items() if key[0] == "tfserving_requests_total"}
    assert ours == {key: scraped.values[key] for key in ours}


def test_callers_cannot_create_labels(apis, scraped):
    """Names that do not exist share one series."""
    for number in range(5):
        assert apis.call(services.PREDICT, predict_request(f"no{number}")) is None
        assert apis.call(services.PREDICT, predict_request(version=100 + number)) is None
        assert apis.call(services.PREDICT, predict_request(signature=f"no{number}")) is None
        assert apis.rest.send("GET", f"/v1/models/no{number}").status == 404
        assert apis.rest.send(f"METHOD{number}", "/v1/models/m").status == 400
    again = Scrape(apis.rest.send("GET", PATH).body.decode())
    for name, labels in again.values.keys() - scraped.values.keys():
        for label, value in labels:
            assert not re.search(r"no\d|10\d|METHOD", value), (name, label, value)
    failed = {"version": "", "signature": "", "api": "GRPC", "method": "Predict", "status": "NOT_FOUND"}
    assert again.value("tfserving_requests_total", model_name="", **failed) == 1 + 5
    assert again.value("tfserving_requests_total", model_name="m", **failed) == 5
    without_signature = failed | {"version": "3", "status": "FAILED_PRECONDITION"}
    assert again.value("tfserving_requests_total", model_name="m", **without_signature) == 5


def test_names_that_callers_invent_share_one_series(metrics):
    for number in range(100):
        call(metrics, f"no{number}", None, "", error=NotFoundError("none"))
    found = scrape(metrics).values
    assert len([1 for name, _ in found if name == "tfserving_requests_total"]) == 1


def test_without_models_every_model_is_unknown():
    metrics = Metrics()
    call(metrics)
    assert scrape(metrics).value(":tensorflow:serving:request_count", model_name="", status="OK") == 1


def test_failures_have_a_status_and_no_latency(metrics):
    call(metrics, error=TfServingError("no room", code="RESOURCE_EXHAUSTED"))
    scraped = scrape(metrics)
    failed = {"model_name": "m", "status": "RESOURCE_EXHAUSTED"}
    assert scraped.value(":tensorflow:serving:request_count", **failed) == 1
    assert not scraped.labels(":tensorflow:serving:request_latency")
    assert not scraped.labels("tfserving_request_latency_seconds")


@pytest.mark.parametrize("method", ["MultiInference", "GetModelMetadata", "HandleReloadConfigRequest"])
def test_methods_that_tensorflow_model_server_does_not_count_are_only_in_our_metrics(metrics, method):
    call(metrics, method=method)
    scraped = scrape(metrics)
    assert not scraped.labels(":tensorflow:serving:request_count")
    assert scraped.labels("tfserving_requests_total")


def test_requests_in_flight_are_counted(metrics):
    with RequestContext(REST, observers=[metrics]):
        assert scrape(metrics).value("tfserving_requests_in_flight", api="REST") == 1
    assert scrape(metrics).value("tfserving_requests_in_flight", api="REST") == 0


def test_latencies_have_the_unit_of_their_metric(metrics):
    with RequestContext(GRPC, "Predict", observers=[metrics]) as context:
        context.requested_spec, context.version, context.signature = ModelSpec("m"), 3, "s"
        context.started -= 2
    scraped = scrape(metrics)
    seconds = [
        v for (name, _), v in scraped.values.items() if name == "tfserving_request_latency_seconds_sum"
    ]
    micros = [
        v for (name, _), v in scraped.values.items() if name == ":tensorflow:serving:request_latency_sum"
    ]
    assert seconds[0] >= 2
    assert micros[0] == pytest.approx(seconds[0] * 1e6)


def test_versions_that_were_unloaded_long_ago_have_no_series(metrics):
    models = FakeModels(m=[ServableStatus(1, State.AVAILABLE)])
    metrics.set_models(models)
    call(metrics, version=1)
    call(metrics, version=None, signature="", error=NotFoundError("none"))
    ended = [ServableStatus(version, State.END) for version in range(30, 20, -1)]
    models.statuses["m"] = [*ended, ServableStatus(1, State.END)]

    def shown(name):
        found = {dict(labels)["version"] for series, labels in scrape(metrics).values if series == name}
        return sorted(found, key=lambda version: int(version or 0))

    assert shown("tfserving_model_state") == [str(version) for version in range(21, 31)]
    assert shown("tfserving_requests_total") == [""]
    assert shown("tfserving_request_latency_seconds_count") == []
    call(metrics, version=30)
    assert shown("tfserving_requests_total") == ["", "30"]


def test_a_model_without_versions_has_no_state(metrics):
    metrics.set_models(FakeModels(m=[]))
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
def test_reads_the_monitoring_configuration(tmp_path, text, path):
    file = tmp_path / "monitoring.config"
    file.write_text(text)
    watching = Observability(ObservabilityOptions(monitoring_config_file=str(file)))
    assert (watching.page.path if watching.page else None) == (path or None)
    assert bool(watching.observers) == bool(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prometheus { enable: true }", "prometheus"),
        ('prometheus_config { enable: true path: "metrics" }', "does not start with /"),
        (None, "No such file"),
    ],
)
def test_rejects_an_invalid_monitoring_configuration(tmp_path, text, message):
    file = tmp_path / "monitoring.config"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Observability(ObservabilityOptions(monitoring_config_file=str(file)))
    assert f"--monitoring_config_file={file}" in str(caught.value)


def test_the_page_does_not_wait_for_a_body(in_loop, observers_of_flags):
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    with serve(in_loop, page=observers_of_flags.page) as apis:
        with socket.create_connection(("127.0.0.1", apis.rest.port), timeout=30) as client:
            client.sendall(head.encode())
            assert b"400 Bad Request" in client.recv(4096)


def test_without_the_flag_there_is_no_page(in_loop):
    watching = Observability(ObservabilityOptions())
    assert not watching.observers
    with serve(in_loop, watching.observers, watching.page) as apis:
        assert apis.rest.send("GET", PATH).status == 404
