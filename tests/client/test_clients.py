"""What holds for all four clients: the same calls, results and errors."""

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


def test_the_value_will_do_where_there_is_one_input(client):
    assert values(client.infer([4])) == {"y": [4.0]}
    assert values(client.infer(np.array([4], np.float32))) == {"y": [4.0]}
    assert values(client.infer(4, signature="scalar")) == {"y": 5.0}


def test_predict_takes_another_model_version_label_and_signature(client, service):
    service.models["other"] = {7: service.models["half"][1]}
    assert values(client.predict([0], "other")) == {"y": [1.0]}
    assert values(client.predict([0], version=1)) == {"y": [1.0]}
    assert values(client.predict([0], version=2)) == {"y": [2.0]}
    assert values(client.predict([0], label="stable")) == {"y": [1.0]}
    pair = client.predict({"a": [[1, 2], [3, 4]], "b": [5, 2**40]}, signature="pair")
    assert values(pair) == {"sum": [8.0, float(2**40)], "twice": [10, 2**41]}
    assert {name: array.dtype for name, array in pair.items()} == {"sum": np.float32, "twice": np.int64}


def test_only_the_wanted_outputs_come(client):
    inputs = {"a": [[1, 2]], "b": [3]}
    assert values(client.predict(inputs, signature="pair", outputs=["twice"])) == {"twice": [6]}
    assert values(client.predict(inputs, signature="pair", outputs="sum")) == {"sum": [6.0]}
    with pytest.raises(InvalidInputError, match="no output 'nope'; it has: 'sum', 'twice'"):
        client.predict(inputs, signature="pair", outputs=["nope"])


def test_the_signature_is_asked_for_once(client, service):
    for _ in range(3):
        client.infer([1])
    assert len([method for method in service.asked if "etadata" in method]) == 1


def test_strings_and_bytes(client):
    given = ["häl", b"\x00\xff", ""]
    expected = [b"h\xc3\xa4l", b"\x00\xff", b""]
    assert values(client.infer(given, signature="string")) == {"y": expected}
    assert values(client.infer(np.array(given, object), signature="string")) == {"y": expected}


def test_numbers_that_json_finds_hard(client):
    given = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38, 0.1], np.float32)
    got = client.infer(given, signature="float32")["y"]
    assert got.tobytes() == given.tobytes()
    big = np.array([2**63 - 1, -(2**63), 2**53 + 1])
    assert client.infer(big, signature="int64")["y"].tolist() == big.tolist()


@pytest.mark.parametrize(
    "name",
    ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"],
)
def test_each_dtype_comes_back_as_it_went(client, name):
    given = np.array([[0, 1, 1], [1, 0, 1]], name)
    for array in (given, given.T, given[::-1], np.array(given, given.dtype.newbyteorder(">"))):
        got = client.infer(array, signature=name)["y"]
        assert got.dtype == name
        assert np.array_equal(got, array)
        assert got.flags.writeable


def test_what_does_not_fit_the_signature_is_refused_before_sending(client, service):
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
    assert len([method for method in service.asked if "redict" in method]) == 1


def test_a_hot_update_that_changes_the_signature_needs_no_new_client(client, service):
    client.infer([1])
    version = service.models["half"][2]
    version.signatures["serving_default"] = version.signatures["int64"]
    version.functions["serving_default"] = version.functions["int64"]
    assert client.infer([1])["y"].dtype == np.int64
    assert client.infer(np.array([1]))["y"].tolist() == [1]
    with pytest.raises(InvalidInputError, match="expected int64"):
        client.infer(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("error", "kind"),
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
def test_the_errors_of_the_server(client, service, error, kind):
    service.failures = [error] * 3
    with pytest.raises(kind) as caught:
        client.status()
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.address, caught.value.model, caught.value.server_message) == (
        error.code,
        client.address,
        "half",
        str(error),
    )
    assert caught.value.__cause__ is not None or "rest" in type(client.wrapped).__name__.lower()
    assert len(service.failures) == 2, "no second attempt"


def test_a_busy_or_absent_server_is_asked_again(client, service):
    service.failures = [exhausted(), UnavailableError("going down"), exhausted()]
    assert values(client.infer([2])) == {"y": [3.0]}
    assert not service.failures


def test_a_server_that_stays_busy_is_given_up(client, service):
    service.failures = [exhausted() for _ in range(50)]
    with pytest.raises(ExhaustedError, match="--grpc_max_threads"):
        client.infer([2])
    assert len(service.failures) == 50 - 6


def test_a_deadline(client, service, blocked):
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


def test_truncated_replies_are_protocol_errors(client, service, rpc_server, rest_server):
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


def test_no_model_and_two_choices_of_version_are_misuse(client):
    client._calls._model = None
    with pytest.raises(InvalidInputError, match="which model"):
        client.infer([1])
    with pytest.raises(InvalidInputError, match="one of them, not both"):
        client.predict([1], "half", version=1, label="stable")


def test_unknown_names(client):
    with pytest.raises(NotFoundError, match="nobody"):
        client.predict([1], "nobody")
    with pytest.raises(NotFoundError):
        client.predict([1], version=99)
    with pytest.raises(InvalidInputError, match="label"):
        client.predict([1], label="nobody")
    with pytest.raises(NotFoundError, match=r"no signature 'nobody'; the model has: .*'pair'"):
        client.predict([1], signature="nobody")


def test_names_that_would_break_a_url_are_only_names(client, service):
    name = "a/b:c%?#\u00e9 "
    service.models[name] = service.models["half"]
    if "Rpc" in type(client.wrapped).__name__:
        assert values(client.predict([0], name)) == {"y": [2.0]}
    else:
        with pytest.raises(TfServingError):
            client.predict([0], name)
        assert "%2F" in service.asked[-1]
        assert "?" not in service.asked[-1]


def test_metadata_and_status(client):
    signatures = client.metadata()
    assert "inputs['a']  DT_FLOAT (-1, 2)  a:0" in describe(signatures)
    assert client.status() == [VersionStatus(2, "AVAILABLE"), VersionStatus(1, "AVAILABLE")]
    assert client.status(version=1) == [VersionStatus(1, "AVAILABLE")]


def test_classify_and_regress(client):
    examples = [{"x": 3.0}, {"x": [4.0], "name": "b"}]
    assert client.classify(examples, signature="score") == [[("3", 3.0)], [("4", 4.0)]]
    assert client.regress(examples, signature="value").tolist() == [1.5, 2.0]
    assert client.regress([{}], context={"x": 5.0}).tolist() == [2.5]
    with pytest.raises(InvalidInputError, match="list of dicts"):
        client.regress({"x": 1.0})


def test_what_rest_lacks_is_said(client):
    examples = [{"x": 3.0}]
    if "Rpc" in type(client.wrapped).__name__:
        answers = client.multi_inference(examples, ["value", "score"])
        assert answers["score"] == [[("3", 3.0)]]
        assert answers["value"].tolist() == [1.5]
        with pytest.raises(InvalidInputError, match="classify and regress"):
            client.multi_inference(examples, ["pair"])
    else:
        with pytest.raises(UnsupportedError, match="TfRpcClient"):
            client.multi_inference(examples, ["value", "score"])
        with pytest.raises(UnsupportedError, match="TfRpcClient"):
            client.reload_config(CONFIG)
        with pytest.raises(UnsupportedError, match="TfRpcClient"):
            client.infer([1j], signature="complex64")


@pytest.mark.parametrize("client", ["rpc", "aio"], indirect=True)
def test_reload_config(client, service):
    client.reload_config(CONFIG)
    assert service.configs[0].model_config_list.config[0].name == "half"
    client.reload_config(service.configs[0])
    assert service.configs[1] == service.configs[0]
    with pytest.raises(
        ConfigError, match=r"^Error parsing text-format tensorflow\.serving.ModelServerConfig: 1:"
    ):
        client.reload_config("model_config_list {")
    with pytest.raises(InvalidInputError, match="not dict"):
        client.reload_config({})


def test_waiting_ends_when_the_model_is_available(client, service):
    service.models["half"][2].state = service.models["half"][1].state = 20
    looks = []

    def before(method):
        looks.append(method)
        if len(looks) == 3:
            service.models["half"][1].state = 30

    service.before = before
    client.wait_until_available(30)
    assert len(looks) == 3
    client.wait_until_available(30, label="stable")


def test_waiting_tells_what_was_seen_last(client, service):
    service.models["half"] = {4: service.models["half"][1]}
    service.models["half"][4].state = 20
    with pytest.raises(DeadlineError, match="last seen: version 4 LOADING"):
        client.wait_until_available(0.1)
    with pytest.raises(DeadlineError, match="Could not find any versions of model later"):
        client.wait_until_available(0.1, "later")
    service.models["half"][4].state = 30
    with pytest.raises(DeadlineError, match="label"):
        client.wait_until_available(0.1, label="canary")


def test_call_metadata_reaches_the_server(client, service, rest_server):
    client.wrapped._metadata = (("authorization", "Bearer abc"),)
    client.status()
    seen = (service.metadata or rest_server.headers)[-1]
    assert seen["authorization"] == "Bearer abc"
    client.wrapped._metadata = lambda: {"Authorization": "Bearer new"}
    client.status()
    seen = (service.metadata or rest_server.headers)[-1]
    assert seen["authorization"] == "Bearer new"


def test_a_closed_client_says_so(client):
    client.infer([1])
    client.close()
    with pytest.raises(FailedPreconditionError, match="closed"):
        client.infer([1])
    client.close()
