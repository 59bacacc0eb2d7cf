"""All four clients have the same calls, results and errors."""

import random

import numpy as np
import pytest

from tfserving.client import VersionStatus, describe
from tfserving.errors import (
    ConfigError,
    DeadlineError,
    ExhaustedError,
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    TfServingError,
    UnavailableError,
    UnsupportedError,
)

CONFIG = 'model_config_list { config { name: "half" base_path: "/models/half" } }'


def exhausted():
    return ExhaustedError("Server Threadpool Exhausted")


def values(outputs):
    return {name: array.tolist() for name, array in outputs.items()}


def test_python_numbers_take_the_dtype_of_the_signature(client):
    outputs = client.infer({"x": [1, 2.5]})
    assert values(outputs) == {"y": [2.5, 3.25]}
    assert outputs["y"].dtype == np.float32


def test_accepts_a_bare_value_for_a_single_input(client):
    assert values(client.infer([4])) == {"y": [4.0]}
    assert values(client.infer(np.array([4], np.float32))) == {"y": [4.0]}
    assert values(client.infer(4, signature="scalar")) == {"y": 5.0}


def test_infer_takes_a_model_version_label_and_signature(client, service):
    service.models["other"] = {7: service.models["half"][1]}
    assert values(client.infer([0], model="other")) == {"y": [1.0]}
    assert values(client.infer([0], version=1)) == {"y": [1.0]}
    assert values(client.infer([0], version=2)) == {"y": [2.0]}
    assert values(client.infer([0], label="stable")) == {"y": [1.0]}
    pair = client.infer({"a": [[1, 2], [3, 4]], "b": [5, 2**40]}, signature="pair")
    assert values(pair) == {"sum": [8.0, float(2**40)], "twice": [10, 2**41]}
    assert {name: array.dtype for name, array in pair.items()} == {"sum": np.float32, "twice": np.int64}


@pytest.fixture
def split_client(connect, service):
    """A client whose calls go to version 1 and, with label "canary", to version 2."""
    service.labels["half", "canary"] = 2
    return connect(split={"stable": 3, "canary": 1})


def versions_of(client, **options):
    return [int(client.infer([0], **options)["y"][0]) for _ in range(20)]


def test_calls_without_a_key_are_split_at_random(split_client):
    random.seed(1)
    versions = versions_of(split_client)
    assert 0 < versions.count(2) < versions.count(1)
    random.seed(1)
    assert versions_of(split_client) == versions


def test_calls_with_a_key_go_to_one_label(split_client):
    by_key = {key: set(versions_of(split_client, split_key=key)) for key in ("a", "b", "c", "d", 5, b"f")}
    assert {len(versions) for versions in by_key.values()} == {1}
    assert set.union(*by_key.values()) == {1, 2}


def test_a_version_a_label_or_another_model_is_not_split(split_client, service):
    service.models["other"] = {7: service.models["half"][2]}
    assert set(versions_of(split_client, version=2)) == {2}
    assert set(versions_of(split_client, label="stable")) == {1}
    assert set(versions_of(split_client, model="other")) == {2}
    service.labels.clear()
    assert split_client.metadata().keys() == service.models["half"][2].signatures.keys()
    split_client.wait_until_available(5)


def test_every_inference_call_is_split(connect, service, kind):
    client = connect(split={"missing": 1})
    calls = [
        lambda: client.infer([0]),
        lambda: client.infer([0], split_key="a"),
        lambda: client.predict([0], split_key="a"),
    ]
    if "rest" not in kind:  # the fake server does not look at the label of the others over gRPC
        calls.append(lambda: client.multi_inference([{"x": 1.0}], ["score"], split_key="a"))
    for call in calls:
        with pytest.raises(InvalidInputError, match="label: missing"):
            call()
    key = {"split_key": "a"}
    if "rest" in kind:
        client.classify([{"x": 1.0}], signature="score", **key)
        client.regress([{"x": 1.0}], signature="value", **key)
        paths = [method for method in service.methods if "missing" in method]
        assert {path.rpartition(":")[2] for path in paths} >= {"classify", "regress"}


def test_a_client_without_a_split_ignores_the_key(client):
    assert set(versions_of(client, split_key="a")) == {2}


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({}, "pass a dict from labels to weights"),
        ([("stable", 1)], "pass a dict from labels to weights"),
        ({"": 1}, "label '' is not valid"),
        ({1: 1}, "label 1 is not valid"),
        ({"a\ud800": 1}, "is not valid; pass a str"),
        ({"a": 0}, "weight 0 of label 'a' is not valid; pass a number above 0, or omit the label"),
        ({"a": -1}, "weight -1"),
        ({"a": True}, "weight True"),
        ({"a": "5"}, "weight '5'"),
        ({"a": float("nan")}, "weight nan"),
        ({"a": float("inf")}, "weight inf"),
        ({"a": 1e308, "b": 1e308}, "the weights are too large"),
        ({"a": 10**400}, "the weights are too large"),
    ],
)
def test_rejects_an_invalid_split(connect, split, words):
    with pytest.raises(InvalidInputError, match=words):
        connect(split=split)


def test_rejects_a_split_without_a_model(connect):
    with pytest.raises(InvalidInputError, match="labels belong to a model; pass model_name="):
        connect(None, split={"stable": 1})


@pytest.mark.parametrize("key", [1.5, True, ["a"]])
def test_rejects_an_invalid_key(split_client, key):
    with pytest.raises(InvalidInputError, match="pass a str, bytes or int"):
        split_client.infer([0], split_key=key)


def test_rejects_an_int_longer_than_a_uuid_as_key(split_client):
    split_client.infer([0], split_key=2**128 - 1)
    with pytest.raises(InvalidInputError, match="an int of 40001 bits; pass at most 128 bits, or a str"):
        split_client.infer([0], split_key=2**40000)


def test_predict_is_infer_with_the_model_as_second_argument(client, service):
    service.models["other"] = {7: service.models["half"][1]}
    assert values(client.predict([0], "other")) == {"y": [1.0]}
    assert values(client.predict([0], version=1, timeout=30)) == {"y": [1.0]}
    assert values(client.predict([0], label="stable")) == {"y": [1.0]}
    inputs = {"a": [[1, 2]], "b": [3]}
    assert values(client.predict(inputs, signature="pair", outputs="sum")) == {"sum": [6.0]}


def test_returns_only_the_selected_outputs(client):
    inputs = {"a": [[1, 2]], "b": [3]}
    assert values(client.predict(inputs, signature="pair", outputs=["twice"])) == {"twice": [6]}
    assert values(client.predict(inputs, signature="pair", outputs="sum")) == {"sum": [6.0]}
    with pytest.raises(InvalidInputError, match="no output 'nope'; it has: 'sum', 'twice'"):
        client.predict(inputs, signature="pair", outputs=["nope"])


def test_fetches_the_signature_once(client, service):
    for _ in range(3):
        client.infer([1])
    assert len([method for method in service.methods if "etadata" in method]) == 1


def test_sends_and_receives_strings_and_bytes(client):
    given = ["häl", b"\x00\xff", ""]
    expected = [b"h\xc3\xa4l", b"\x00\xff", b""]
    assert values(client.infer(given, signature="string")) == {"y": expected}
    assert values(client.infer(np.array(given, object), signature="string")) == {"y": expected}


LONE = "a\udc80"


@pytest.mark.parametrize("inputs", [LONE, ["a", LONE], np.array([LONE]), np.array([b"a", LONE], object)])
def test_rejects_text_that_utf_8_cannot_represent(client, service, inputs, json_library):
    client.infer(["a"], signature="string")
    with pytest.raises(InvalidInputError, match=r"input 'x' of .*str 'a\\udc80'; .*surrogates: pass bytes"):
        client.infer(inputs, signature="string")
    assert len([method for method in service.methods if "redict" in method]) == 1


@pytest.mark.parametrize(
    "features",
    [{"x": LONE}, {"x": [b"a", LONE]}, {"x": np.array([LONE])}, {LONE: 1.0}, {3: 1.0}, {"x": 1e39}],
)
def test_rejects_features_that_cannot_be_encoded(client, service, features):
    for arguments in ({"examples": [features]}, {"examples": [{"x": 1.0}], "context": features}):
        with pytest.raises(InvalidInputError, match="feature "):
            client.classify(**arguments)
        with pytest.raises(InvalidInputError, match="feature "):
            client.regress(**arguments)
    assert not service.methods


@pytest.mark.parametrize(
    "arguments",
    [
        *({"model": LONE}, {"model": 3}, {"model": b"half"}, {"model": ["half"]}),
        *({"label": LONE}, {"label": 3}, {"signature": LONE}, {"signature": 3}),
        *({"version": 2**63}, {"version": "1"}, {"version": 1.5}),
    ],
)
def test_rejects_names_and_versions_that_cannot_be_encoded(client, service, arguments):
    with pytest.raises(InvalidInputError, match=f"{next(iter(arguments))}=.* not valid"):
        client.infer([1], **arguments)
    assert not service.methods


def test_versions_may_be_numpy_integers(client):
    assert values(client.infer([0], version=np.int64(1))) == {"y": [1.0]}


def test_sends_bytearray_and_memoryview_as_bytes(client):
    given = [bytearray(b"\x00\xff"), memoryview(b"ab")]
    array = np.empty(2, object)
    array[0], array[1] = given
    for inputs in (given, array):
        assert values(client.infer(inputs, signature="string")) == {"y": [b"\x00\xff", b"ab"]}


def test_special_floats_and_large_integers_are_exact(client):
    given = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38, 0.1], np.float32)
    got = client.infer(given, signature="float32")["y"]
    assert got.tobytes() == given.tobytes()
    big = np.array([2**63 - 1, -(2**63), 2**53 + 1])
    assert client.infer(big, signature="int64")["y"].tolist() == big.tolist()


@pytest.mark.parametrize(
    "name",
    ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"],
)
def test_each_dtype_survives_a_round_trip(client, name):
    given = np.array([[0, 1, 1], [1, 0, 1]], name)
    for array in (given, given.T, given[::-1], np.array(given, given.dtype.newbyteorder(">"))):
        got = client.infer(array, signature=name)["y"]
        assert got.dtype == name
        assert np.array_equal(got, array)
        assert got.flags.writeable


def test_rejects_inputs_that_do_not_fit_the_signature_before_sending(client, service):
    client.infer([1])
    for inputs, words in (
        (np.zeros(2), "input 'x' .*expected float32 .*given a float64 array"),
        ([[1, 2]], r"input 'x' .*expected float32 \(-1\), given shape \(1, 2\)"),
        ({"z": [1]}, "no input 'z'; it takes: 'x'"),
        ({}, "needs input 'x'"),
        (["a"], "input 'x' .*expected float32"),
    ):
        with pytest.raises(InvalidInputError, match=words) as caught:
            client.infer(inputs)
        assert caught.value.address == client.address
        assert caught.value.model == "half"
    assert len([method for method in service.methods if "redict" in method]) == 1


def test_a_client_follows_a_signature_that_changed_on_the_server(client, service):
    client.infer([1])
    version = service.models["half"][2]
    version.signatures["serving_default"] = version.signatures["int64"]
    version.functions["serving_default"] = version.functions["int64"]
    assert client.infer([1])["y"].dtype == np.int64
    assert client.infer(np.array([1]))["y"].tolist() == [1]
    with pytest.raises(InvalidInputError, match="expected int64"):
        client.infer(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (NotFoundError("Servable not found for request: Latest(half)"), NotFoundError),
        (InvalidInputError("assertion failed"), InvalidInputError),
        (PermissionDeniedError("not you"), PermissionDeniedError),
        (PermissionDeniedError("who are you", code="UNAUTHENTICATED"), PermissionDeniedError),
        (UnsupportedError("not here"), UnsupportedError),
        (ExhaustedError("OOM when allocating tensor"), ExhaustedError),
        (TfServingError("the model crashed", code="INTERNAL"), TfServingError),
    ],
)
def test_errors_of_the_server_keep_their_class_code_and_message(client, service, error, error_class):
    service.failures = [error] * 3
    with pytest.raises(error_class) as caught:
        client.status()
    assert type(caught.value) is error_class
    assert (caught.value.code, caught.value.address, caught.value.model, caught.value.server_message) == (
        error.code,
        client.address,
        "half",
        str(error),
    )
    assert caught.value.__cause__ is not None or "rest" in type(client.wrapped).__name__.lower()
    assert len(service.failures) == 2, "no retry"


def test_retries_when_the_server_is_busy_or_unavailable(client, service):
    service.failures = [exhausted(), UnavailableError("going down"), exhausted()]
    assert values(client.infer([2])) == {"y": [3.0]}
    assert not service.failures


def test_retries_when_a_server_that_shuts_down_cancels_the_call(client, service):
    service.failures = [TfServingError("cancelled", code="CANCELLED") for _ in range(2)]
    assert values(client.infer([2])) == {"y": [3.0]}
    assert not service.failures


def test_stops_retrying_after_the_last_attempt(client, service):
    service.failures = [exhausted() for _ in range(50)]
    with pytest.raises(ExhaustedError, match="--grpc_max_threads"):
        client.infer([2])
    assert len(service.failures) == 50 - 6


def test_raises_deadline_error_when_the_timeout_passes(client, service, blocked):
    service.before = blocked
    with pytest.raises(DeadlineError) as caught:
        client.status(timeout=0.05)
    assert caught.value.code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff", b"garbage" * 1000, b"\x0a\xff\xff\xff\xff\x07", b"{", b"[]"]
)
def test_garbage_is_a_protocol_error(client, service, garbage):
    client.infer([1])
    service.garbage = garbage
    with pytest.raises(ProtocolError) as caught:
        client.infer([1])
    assert caught.value.address == client.address
    with pytest.raises(ProtocolError):
        client.metadata()
    service.garbage = None
    assert values(client.infer([1])) == {"y": [2.5]}


def test_a_truncated_reply_is_a_protocol_error_unless_its_outputs_are_complete(
    client, service, rpc_server, rest_server
):
    client.infer([1])
    whole = b'{"outputs": [1.5, 2.5]}'
    if "Rpc" in type(client.wrapped).__name__:
        from tfserving.wire.model_spec import ModelSpec
        from tfserving.wire.predict import encode_response

        whole = encode_response(ModelSpec("half", 2), {"y": np.zeros(2, np.float32)})
    for end in range(len(whole)):
        service.garbage = whole[:end]
        try:
            got = client.infer([1])
        except ProtocolError:
            continue
        # the model spec stands behind the outputs
        assert got["y"].tolist() == [0.0, 0.0]


def test_rejects_a_call_without_a_model(connect):
    with pytest.raises(InvalidInputError, match="no model name was given"):
        connect(model=None).infer([1])


def test_rejects_a_version_together_with_a_label(client):
    with pytest.raises(InvalidInputError, match="mutually exclusive"):
        client.infer([1], version=1, label="stable")


def test_unknown_models_versions_labels_and_signatures_are_errors(client):
    with pytest.raises(NotFoundError, match="nobody"):
        client.predict([1], "nobody")
    with pytest.raises(NotFoundError):
        client.predict([1], version=99)
    with pytest.raises(InvalidInputError, match="label"):
        client.predict([1], label="nobody")
    with pytest.raises(NotFoundError, match=r"no signature 'nobody'; it has: .*'pair'"):
        client.predict([1], signature="nobody")


def test_model_names_are_escaped_in_urls(client, service):
    name = "a/b:c%?#\u00e9 "
    service.models[name] = service.models["half"]
    if "Rpc" in type(client.wrapped).__name__:
        assert values(client.predict([0], name)) == {"y": [2.0]}
    else:
        with pytest.raises(TfServingError):
            client.predict([0], name)
        assert "%2F" in service.methods[-1]
        assert "?" not in service.methods[-1]


def test_returns_signatures_and_version_statuses(client):
    signatures = client.metadata()
    assert "inputs['a']  DT_FLOAT (-1, 2)  a:0" in describe(signatures)
    assert client.status() == [VersionStatus(2, "AVAILABLE"), VersionStatus(1, "AVAILABLE")]
    assert client.status(version=1) == [VersionStatus(1, "AVAILABLE")]


def test_resolves_a_label_to_its_version(client):
    assert client.resolve_version() == 2
    assert client.resolve_version("half", label="stable") == 1
    with pytest.raises(InvalidInputError, match="label"):
        client.resolve_version(label="nobody")


def test_classifies_and_regresses_examples(client):
    examples = [{"x": 3.0}, {"x": [4.0], "name": "b"}]
    assert client.classify(examples, signature="score") == [[("3", 3.0)], [("4", 4.0)]]
    assert client.regress(examples, signature="value").tolist() == [1.5, 2.0]
    assert client.regress([{}], context={"x": 5.0}).tolist() == [2.5]
    with pytest.raises(InvalidInputError, match="list of dicts"):
        client.regress({"x": 1.0})


def test_calls_that_rest_lacks_are_unsupported(client):
    examples = [{"x": 3.0}]
    if "Rpc" in type(client.wrapped).__name__:
        results = client.multi_inference(examples, ["value", "score"])
        assert results["score"] == [[("3", 3.0)]]
        assert results["value"].tolist() == [1.5]
        with pytest.raises(InvalidInputError, match="classify and regress"):
            client.multi_inference(examples, ["pair"])
    else:
        with pytest.raises(UnsupportedError, match="TfRpcClient"):
            client.multi_inference(examples, ["value", "score"])
        with pytest.raises(UnsupportedError, match="TfRpcClient"):
            client.reload_config(CONFIG)
        with pytest.raises(UnsupportedError, match="TfRpcClient"):
            client.infer([1j], signature="complex64")


@pytest.mark.parametrize("kind", ["rpc", "aio"], indirect=True)
def test_reload_config_takes_text_or_a_message(client, service):
    client.reload_config(CONFIG)
    assert service.configs[0].model_config_list.config[0].name == "half"
    client.reload_config(service.configs[0])
    assert service.configs[1] == service.configs[0]
    with pytest.raises(
        ConfigError, match=r"^Error parsing text-format tensorflow\.serving.ModelServerConfig: 1:"
    ):
        client.reload_config("model_config_list {")
    with pytest.raises(InvalidInputError, match="config is a dict"):
        client.reload_config({})


def test_wait_returns_when_the_model_is_available(client, service):
    service.models["half"][2].state = service.models["half"][1].state = 20
    polls = []

    def before(method):
        polls.append(method)
        if len(polls) == 3:
            service.models["half"][1].state = 30

    service.before = before
    client.wait_until_available(30)
    assert len(polls) == 3
    client.wait_until_available(30, label="stable")


def test_wait_reports_the_last_status_at_its_timeout(client, service):
    service.models["half"] = {4: service.models["half"][1]}
    service.models["half"][4].state = 20
    with pytest.raises(DeadlineError, match="last status: version 4 LOADING"):
        client.wait_until_available(0.4)
    with pytest.raises(DeadlineError, match="Could not find any versions of model later"):
        client.wait_until_available(0.4, "later")
    service.models["half"][4].state = 30
    with pytest.raises(DeadlineError, match="label"):
        client.wait_until_available(0.4, label="canary")


@pytest.mark.parametrize(
    "metadata", [(("authorization", "Bearer abc"),), lambda: {"Authorization": "Bearer abc"}]
)
def test_sends_metadata_with_each_call(connect, service, rest_server, metadata):
    connect(metadata=metadata).status()
    sent = (service.metadata or rest_server.headers)[-1]
    assert sent["authorization"] == "Bearer abc"


def test_calls_of_a_closed_client_raise_failed_precondition(client):
    client.infer([1])
    client.close()
    with pytest.raises(FailedPreconditionError, match="closed"):
        client.infer([1])
    client.close()


HOSTILE = "first\nFAKE LOG LINE\r\t\x1b[2J\x9b1m\x7f\u202e\u2028end \u3000\u4e2d"
ESCAPED = r"first\nFAKE LOG LINE\r\t\u001b[2J\u009b1m\u007f\u202e\u2028end " + "\u3000\u4e2d"


def test_errors_show_control_characters_of_the_server_escaped(client, service):
    service.failures = [InvalidInputError(HOSTILE)]
    with pytest.raises(InvalidInputError) as caught:
        client.status()
    assert ESCAPED in str(caught.value)
    assert caught.value.server_message == HOSTILE
