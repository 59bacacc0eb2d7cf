"""gRPC connections: several servers and channels, sockets, TLS, forks, servers that crash or freeze."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.client.fakes import FakeRpcServer, FakeService
from tfserving.client import (
    AsyncTfRestClient,
    AsyncTfRpcClient,
    Keepalive,
    Retry,
    TfRestClient,
    TfRpcClient,
    Tls,
    fork_safety,
    rpc_transport,
)
from tfserving.client.addresses import Target
from tfserving.errors import FailedPreconditionError, TfServingError, UnavailableError

ROOT = Path(__file__).parents[2]


class Process:
    """A fake server in another process."""

    def __init__(self, port=0, *options):
        command = [sys.executable, "-m", "tests.client.server_process", str(port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.port = int(self.process.stdout.readline())
        self.address = f"127.0.0.1:{self.port}"

    def signal(self, number):
        self.process.send_signal(number)
        if number == signal.SIGSTOP:  # its threads do not stop all together
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def start():
    with contextlib.ExitStack() as ends:

        def make(port=0, *options):
            process = Process(port, *options)
            ends.callback(process.end)
            return process

        yield make


@pytest.fixture
def two(start):
    return start(), start()


class Traffic:
    """Threads that call until the `with` block ends; collects their errors."""

    def __init__(self, client, threads=4):
        self.client = client
        self.calls = 0
        self.errors = []
        self._over = False
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self):
        while not self._over:
            try:
                self.client.infer([1.0])
            except TfServingError as error:
                self.errors.append(error)
            self.calls += 1

    def wait_for_calls(self, count):
        until = self.calls + count
        deadline = time.monotonic() + 60
        while self.calls < until:
            assert time.monotonic() < deadline, f"{self.calls} calls, {self.errors}"
            time.sleep(0.002)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._over = True
        for thread in self._threads:
            thread.join()


def call_in_a_child(infer):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        good = False
        try:
            good = infer([3])["y"].tolist() == [3.5]
        finally:
            os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_calls_go_to_all_servers():
    services = [FakeService(), FakeService()]
    with FakeRpcServer(services[0]) as one, FakeRpcServer(services[1]) as other:
        for address in ([one.address, other.address], f"localhost:{one.port},localhost:{other.port}"):
            for service in services:
                service.methods.clear()
            with TfRpcClient(address, "half") as client:
                for _ in range(200):
                    client.infer([1])
                    if all("Predict" in service.methods for service in services):
                        break
            assert all("Predict" in service.methods for service in services)


def test_ignores_a_name_among_several_that_does_not_resolve(rpc_server):
    with TfRpcClient(f"nobody.invalid:1,{rpc_server.address},127.0.0.1:1", "half") as client:
        for _ in range(10):
            assert client.infer([1])["y"].tolist() == [2.5]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_calls_follow_a_server_that_moved_and_calls_in_flight_finish(asynchronous, monkeypatch):
    services = [FakeService(), FakeService()]
    held, go_on = threading.Event(), threading.Event()

    def hold(method):
        if method == "Predict":
            held.set()
            go_on.wait(60)

    class Moving:
        text, addresses = "moving", ()
        target = Target("")

        def current(self):
            return self.target

        def after_fork(self):
            pass

    with FakeRpcServer(services[0]) as old, FakeRpcServer(services[1]) as new:
        moving = Moving()
        monkeypatch.setattr(rpc_transport, "Targets", lambda address, port: moving)
        moving.target = Target(f"ipv4:{old.address}")
        services[0].before = hold

        async def call():
            async with AsyncTfRpcClient(moving.text, "half") as client:
                slow = asyncio.create_task(client.infer([1]))
                while not held.is_set():
                    await asyncio.sleep(0.002)
                moving.target = Target(f"ipv4:{new.address}")
                await client.infer([1])
                gc.collect()
                go_on.set()
                return await slow

        if asynchronous:
            asyncio.run(call())
        else:
            with TfRpcClient(moving.text, "half") as client, ThreadPoolExecutor(1) as pool:
                slow = pool.submit(client.infer, [1])
                held.wait()
                moving.target = Target(f"ipv4:{new.address}")
                client.infer([1])
                gc.collect()
                go_on.set()
                slow.result()
    assert services[0].methods.count("Predict") == services[1].methods.count("Predict") == 1


def test_no_call_fails_when_one_of_two_servers_is_killed(two):
    with TfRpcClient([server.address for server in two], "half") as client, Traffic(client) as traffic:
        traffic.wait_for_calls(100)
        two[0].signal(signal.SIGKILL)
        traffic.wait_for_calls(500)
    assert not traffic.errors


def test_no_asyncio_call_fails_when_one_of_two_servers_is_killed(two):
    async def main():
        async with AsyncTfRpcClient([server.address for server in two], "half") as client:

            async def caller(count):
                for _ in range(count):
                    await client.infer([1.0])

            await caller(20)
            callers = [asyncio.create_task(caller(100)) for _ in range(8)]
            await asyncio.sleep(0)
            two[1].signal(signal.SIGKILL)
            await asyncio.gather(*callers)

    asyncio.run(main())


def test_reconnects_to_a_server_that_restarts(start):
    server = start()
    with TfRpcClient(server.address, "half", retry=Retry(attempts=2)) as client:
        client.infer([1])
        server.end()
        with pytest.raises(UnavailableError):
            client.infer([1])
        start(server.port)
        client.wait_until_available(30)
        assert client.infer([1])["y"].tolist() == [2.5]


def test_no_call_fails_when_one_of_two_servers_freezes(two):
    keepalive = Keepalive(interval=0.3, timeout=0.3)
    with TfRpcClient([server.address for server in two], "half", keepalive=keepalive) as client:
        with Traffic(client) as traffic:
            traffic.wait_for_calls(100)
            two[0].signal(signal.SIGSTOP)
            # callers wait for the frozen server until the keepalive fails, and then call the other
            traffic.wait_for_calls(500)
        assert not traffic.errors


def test_a_frozen_server_is_unavailable_until_it_continues(start):
    server = start()
    options = [("grpc.min_reconnect_backoff_ms", 300)]
    with TfRpcClient(
        server.address,
        "half",
        keepalive=Keepalive(interval=0.3, timeout=0.3),
        retry=Retry(attempts=1),
        channel_options=options,
    ) as client:
        client.infer([1])
        server.signal(signal.SIGSTOP)
        with pytest.raises(UnavailableError):
            client.infer([1])
        server.signal(signal.SIGCONT)
        client.wait_until_available(30)
        assert client.infer([1])["y"].tolist() == [2.5]


# The servers are other processes: a process with a gRPC server has threads inside gRPC's library always.
@pytest.mark.parametrize("idle", [False, True])
def test_parent_and_child_can_call_after_a_fork(start, idle):
    with TfRpcClient(start().address, "half", channels=2) as client:
        client.infer([1])
        with contextlib.nullcontext() if idle else Traffic(client) as traffic:
            for _ in range(10):
                if traffic is not None:
                    traffic.wait_for_calls(10)
                call_in_a_child(client.infer)
            assert client.infer([1])["y"].tolist() == [2.5]
        assert traffic is None or not traffic.errors


def test_a_fork_cancels_a_long_call_and_the_parent_retries_it(start, monkeypatch):
    monkeypatch.setattr(fork_safety, "FINISH_SECONDS", 0.05)
    server = start(0, "hold")
    with TfRpcClient(server.address, "half") as client, ThreadPoolExecutor(1) as pool:
        client.infer([1])
        slow = pool.submit(client.infer, [1])
        assert server.process.stdout.readline() == "held\n"
        call_in_a_child(client.infer)
        assert slow.result()["y"].tolist() == [2.5], "retried"


def test_the_rest_client_can_call_after_a_fork(rest_server):
    client = TfRestClient(rest_server.address, "half")
    client.infer([1])
    call_in_a_child(client.infer)
    assert client.infer([1])["y"].tolist() == [2.5]
    client.close()


def test_an_idle_asyncio_rest_client_can_call_after_a_fork(rest_server):
    client = AsyncTfRestClient(rest_server.address, "half")
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(client.infer([1]))
        call_in_a_child(lambda inputs: asyncio.run(client.infer(inputs)))
        assert loop.run_until_complete(client.infer([1]))["y"].tolist() == [2.5]
        loop.run_until_complete(client.close())


def test_threads_can_share_a_client(rpc_server, rest_server):
    for client in (TfRpcClient(rpc_server.address, "half"), TfRestClient(rest_server.address, "half")):
        with client, ThreadPoolExecutor(8) as pool:
            responses = pool.map(lambda n: (n, client.infer([n])["y"].tolist()), range(200))  # noqa: B023
            assert all(got == [n / 2 + 2] for n, got in responses)


def test_each_channel_is_a_connection(rpc_server):
    for count in (1, 4):
        rpc_server.peers.clear()
        with TfRpcClient(rpc_server.address, "half", channels=count) as client:
            for _ in range(8):
                client.infer([1])
        assert len(rpc_server.peers) == count


def test_closing_fails_calls_in_flight(service, rpc_server, blocked):
    client = TfRpcClient(rpc_server.address, "half")
    held = threading.Event()

    def hold(method):
        held.set()
        blocked(method)

    service.before = hold
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.infer, [1])
        held.wait()
        client.close()
        with pytest.raises(FailedPreconditionError, match="closed during the call"):
            call.result()


def test_closing_fails_asyncio_calls_in_flight(service, rpc_server, blocked):
    async def main():
        client = AsyncTfRpcClient(rpc_server.address, "half")
        call = asyncio.create_task(client.infer([1]))
        while not service.methods:
            await asyncio.sleep(0.002)
        await client.close()
        with pytest.raises(FailedPreconditionError, match="closed during the call"):
            await call

    service.before = blocked
    asyncio.run(main())


def test_an_asyncio_call_can_be_cancelled(service, rpc_server, blocked):
    async def main():
        async with AsyncTfRpcClient(rpc_server.address, "half") as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.infer([1]), 0.05)
            service.before = lambda method: None
            assert (await client.infer([1]))["y"].tolist() == [2.5]

    service.before = blocked
    asyncio.run(main())


def test_an_asyncio_client_follows_into_another_loop(rpc_server):
    client = AsyncTfRpcClient(rpc_server.address, "half")
    for _ in range(2):
        assert asyncio.run(client.infer([1]))["y"].tolist() == [2.5]
    asyncio.run(client.close())


def test_calls_over_a_unix_socket(tmp_path, service):
    path = f"unix:{tmp_path}/socket"
    with FakeRpcServer(service, listen=path), TfRpcClient(path, "half") as client:
        assert client.infer([1])["y"].tolist() == [2.5]


@pytest.fixture
def tls_server(service, certificates, request):
    """A server with TLS; requires a client certificate with the parameter True."""
    read = lambda name: (certificates / name).read_bytes()  # noqa: E731
    credentials = grpc.ssl_server_credentials(
        [(read("server.key"), read("server.pem"))], read("ca.pem"), request.param
    )
    with FakeRpcServer(service, credentials=credentials) as server:
        yield server


@pytest.mark.parametrize("tls_server", [False], indirect=True)
def test_tls_verifies_the_server(tls_server, certificates):
    tls = Tls(ca=certificates / "ca.pem", server_name="tf.example")
    addresses = f"{tls_server.address},localhost:{tls_server.port}"
    for address in (tls_server.address, addresses):
        with TfRpcClient(address, "half", tls=tls) as client:
            assert client.infer([1])["y"].tolist() == [2.5]
    for wrong in (Tls(ca=certificates / "ca.pem"), Tls(server_name="tf.example"), None):
        with TfRpcClient(tls_server.address, "half", tls=wrong, retry=Retry(attempts=1)) as client:
            with pytest.raises(UnavailableError):
                client.infer([1])


@pytest.mark.parametrize("tls_server", [False], indirect=True)
def test_an_error_of_a_client_without_tls_on_a_port_with_tls_names_the_option(tls_server):
    with (
        TfRpcClient(tls_server.address, "half", retry=Retry(attempts=1)) as client,
        pytest.raises(UnavailableError, match=r"if the server uses TLS on this port, pass tls=Tls\(\)"),
    ):
        client.infer([1])


@pytest.mark.parametrize("tls_server", [True], indirect=True)
def test_mutual_tls_requires_the_client_certificate(tls_server, certificates):
    ca = certificates / "ca.pem"
    tls = Tls(
        ca=ca,
        certificate=certificates / "client.pem",
        key=certificates / "client.key",
        server_name="tf.example",
    )

    async def call():
        async with AsyncTfRpcClient(tls_server.address, "half", tls=tls) as client:
            return (await client.infer([1]))["y"].tolist()

    assert asyncio.run(call()) == [2.5]
    without = Tls(ca=ca, server_name="tf.example")
    with TfRpcClient(tls_server.address, "half", tls=without, retry=Retry(attempts=1)) as client:
        with pytest.raises(UnavailableError):
            client.infer([1])
