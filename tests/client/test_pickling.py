"""Clients, results and errors in other processes."""

import asyncio
import copy
import inspect
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import cloudpickle
import pytest

from tests.client.clients import Blocking
from tfserving.client import Keepalive, Retry, TfRestClient, TfRpcClient
from tfserving.errors import NotFoundError


def call(client, method, *arguments):
    """Call a method of a client of any kind in this process."""
    loop = asyncio.new_event_loop()
    client = Blocking(client, loop)
    try:
        return getattr(client, method)(*arguments)
    finally:
        client.close()
        loop.close()


def test_a_client_reconnects_in_a_spawned_process(client):
    client.infer([1])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        outputs = pool.submit(call, client.wrapped, "infer", [1]).result()
        assert outputs["y"].tolist() == [2.5]
        signatures = pool.submit(call, client.wrapped, "metadata").result()
        assert signatures == client.metadata()
        with pytest.raises(NotFoundError, match="nobody") as caught:
            pool.submit(call, client.wrapped, "status", "nobody").result()
    assert (caught.value.code, caught.value.model) == ("NOT_FOUND", "nobody")
    assert (caught.value.address, bool(caught.value.server_message)) == (client.address, True)
    assert client.infer([1])["y"].tolist() == [2.5], "the connections of this process stay"


def test_a_copy_has_its_own_connections(client):
    other = copy.copy(client.wrapped)
    client.infer([1])
    client.close()
    assert call(other, "infer", [1])["y"].tolist() == [2.5]


def test_cloudpickle_takes_a_client_with_a_function_for_metadata(connect, service, rest_server):
    client = connect(metadata=lambda: {"authorization": "Bearer abc"})
    call(pickle.loads(cloudpickle.dumps(client.wrapped)), "status")
    sent = (service.metadata or rest_server.headers)[-1]
    assert sent["authorization"] == "Bearer abc"


@pytest.mark.parametrize("cls", [TfRpcClient, TfRestClient])
def test_a_pickled_client_has_all_arguments_of_the_constructor(cls):
    options = {"retry": Retry(attempts=2), "timeout": 3.0, "proxy": "http://user:secret@p:1"}
    options["split"] = {"stable": 95, "canary": 5}
    if cls is TfRpcClient:
        options |= {"keepalive": Keepalive(5), "channels": 2, "channel_options": [("grpc.x", 1)]}
    client = cls(["a:1", "b:2"], "half", **options)
    other = pickle.loads(pickle.dumps(client))
    assert repr(other) == repr(client) == f"{cls.__name__}('a:1,b:2', 'half')"
    create, (kind, arguments) = other.__reduce__()
    assert arguments.keys() == inspect.signature(cls).parameters.keys()
    assert {name: arguments[name] for name in options} == options
    assert kind is cls
    assert "secret" not in f"{vars(client)} {vars(other)}"
    for one in (client, other, create(kind, arguments)):
        one.close()
