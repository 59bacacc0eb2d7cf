"""Servers with the embedded server's core and gRPC API, but without TensorFlow, in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import grpc.aio

from tests.server.fake_loader import TIMES, FakeServable
from tfserving.errors import RepositoryError
from tfserving.repository.config import parse_config
from tfserving.server.core.file_system_source import FileSystemSource
from tfserving.server.core.manager import ServableManager
from tfserving.server.core.server_core import ServerCore
from tfserving.server.grpc.grpc_api import GrpcApi
from tfserving.server.server_options import LimitOptions, LoadOptions, PollOptions
from tfserving.server.service import Service
from tfserving.server.worker_pool import WorkerPools

# A version with this file fails to load on the servers whose port it contains, or on all if it is empty.
BROKEN = "broken"
# A version with this file returns what the version does whose number it contains.
LIKE = "like"


class ServerLoop:
    """An event loop in its own thread, for servers that outlive a call."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class TokenCheck(grpc.aio.ServerInterceptor):
    """Rejects calls without a bearer token, as the gateway does."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        if self._header in {(key, value) for key, value in details.invocation_metadata}:
            return await continuation(details)

        async def reject(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a valid token is required")

        return grpc.unary_unary_rpc_method_handler(reject)


class LightServer:
    """A server of the models in a models.config; version V of each returns its number as `version`.

    Args:
        models_dir: the model repository.
        config: the models.config.
        poll: seconds between two reads of the file; 0 reads it once.
        certificate: a PEM key and certificate for localhost, with which the server uses TLS.
        client_ca: the PEM certificate of the authority whose client certificates it requires; b"" for none.
        token: the bearer token that it requires.
    """

    def __init__(
        self,
        loop: ServerLoop,
        models_dir: Path,
        config: Path,
        poll: float = 0.0,
        *,
        certificate: tuple[bytes, bytes] | None = None,
        client_ca: bytes = b"",
        token: str = "",
    ) -> None:
        self._loop = loop
        self.port = 0
        self._certificate, self._client_ca, self._token = certificate, client_ca, token
        limits = LimitOptions()
        self._manager = ServableManager(self._load, LoadOptions(max_retries=0))
        self._core = ServerCore(
            self._manager,
            FileSystemSource(models_dir, settle=False),
            lambda: parse_config(config.read_text()),
            poll=PollOptions(file_system=0, config=poll),
            labels_for_unavailable=True,
        )
        self._core.start()
        self._workers = WorkerPools(4, lambda name: name in self._manager.models(), limits)
        service = Service(self._manager, self._workers)
        self._api = GrpcApi(service, limits, reload=self._core.reload)
        self._server: Any = None
        loop.run(self._start())

    @property
    def address(self) -> str:
        return f"{'localhost' if self._certificate else '127.0.0.1'}:{self.port}"

    def stop(self) -> None:
        """Vanish; may be called again."""
        if self._server is not None:
            self._loop.run(self._server.stop(0))
            self._server = None
            self._core.stop()
            self._workers.shut_down()

    async def _start(self) -> None:
        self._server = grpc.aio.server(interceptors=[TokenCheck(self._token)] if self._token else [])
        self._api.add_to(self._server)
        if self._certificate:
            credentials = grpc.ssl_server_credentials(
                [self._certificate], self._client_ca or None, bool(self._client_ca)
            )
            self.port = self._server.add_secure_port("localhost:0", credentials)
        else:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    def _load(self, model: str, version: int, path: Path) -> FakeServable:
        broken = path / BROKEN
        if broken.exists() and broken.read_text() in ("", str(self.port)):
            raise RepositoryError(f"the graph of {path.name} is damaged")
        like = path / LIKE
        return LightServable(int(like.read_text()) if like.exists() else version)


class LightServable(FakeServable):
    """A fake servable that clients can ask for its signature."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        definition = self.signature_def_map.signature_def["serving_default"]
        for infos, tensors in ((definition.inputs, TIMES.inputs), (definition.outputs, TIMES.outputs)):
            for name, info in tensors.items():
                infos[name].name = info.tensor_name
                infos[name].dtype = int(info.dtype)
                infos[name].tensor_shape.SetInParent()
                for size in info.shape or ():
                    infos[name].tensor_shape.dim.add(size=-1 if size is None else size)
