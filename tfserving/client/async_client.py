"""The methods of the two asyncio clients: those of `BlockingClient` as coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tfserving.client.client_base import ClientBase
from tfserving.client.flow import Flow, Request, run_async
from tfserving.client.flow_window import Rows, batches_async, check_window, run_in_order_async
from tfserving.client.options import DEFAULT_TIMEOUT, UNSET, SplitKey, Timeout

if TYPE_CHECKING:
    from types import TracebackType

    from tfserving.client.features import Features
    from tfserving.client.types import Classification, Inference, RowResult, VersionStatus
    from tfserving.wire.dtypes import Array, Arrays
    from tfserving.wire.signatures import Signature

T = TypeVar("T")
Self = TypeVar("Self", bound="AsyncClient")


class AsyncClient(ClientBase):
    """Calls to a server as coroutines; arguments, results and errors are those of `BlockingClient`.

    Tasks may share a client. Its connections belong to the event loop of the call: in another loop it opens
    new ones.
    """

    async def _send(self, request: Request[Any]) -> bytes:
        """See `BlockingClient._send`."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `BlockingClient.close`."""
        raise NotImplementedError

    def _run(self, flow: Flow[T]) -> Coroutine[Any, Any, T]:
        return run_async(flow, self._send, asyncio.sleep)

    async def infer(
        self,
        inputs: Any,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: str | Sequence[str] | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> Arrays:
        """See `BlockingClient.infer`."""
        flows = self._flows
        spec = flows.spec(model, version, label, signature, split_key)
        return await self._run(flows.infer(inputs, spec, outputs, timeout))

    async def predict(
        self,
        inputs: Any,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: str | Sequence[str] | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> Arrays:
        """See `BlockingClient.predict`."""
        return await self.infer(
            inputs,
            model=model,
            version=version,
            label=label,
            signature=signature,
            outputs=outputs,
            timeout=timeout,
            split_key=split_key,
        )

    def infer_many(
        self,
        inputs: Rows,
        *,
        batch_size: int = 32,
        concurrency: int = 4,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        outputs: str | Sequence[str] | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> AsyncGenerator[RowResult, None]:
        """See `BlockingClient.infer_many`: an asynchronous iterator; the rows may arrive asynchronously too.

            async for result in client.infer_many(rows):

        Requests run as tasks. `aclose()` cancels them, as does the end of `contextlib.aclosing`.
        """
        flows = self._flows
        check_window(inputs, batch_size, concurrency)
        flows.check_call(outputs, timeout)
        make_spec = partial(flows.spec, model, version, label, signature, split_key)
        make_spec()  # raises before the first row is read
        return run_in_order_async(
            (
                flows.infer_rows(first, rows, make_spec(), outputs, timeout)
                async for first, rows in batches_async(inputs, batch_size)
            ),
            self._send,
            concurrency,
        )

    async def classify(
        self,
        examples: Sequence[Features],
        model: str | None = None,
        *,
        context: Features | None = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> list[list[Classification]]:
        """See `BlockingClient.classify`."""
        spec = self._flows.spec(model, version, label, signature, split_key)
        return await self._run(self._flows.classify(examples, spec, context, timeout))

    async def regress(
        self,
        examples: Sequence[Features],
        model: str | None = None,
        *,
        context: Features | None = None,
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> Array:
        """See `BlockingClient.regress`."""
        spec = self._flows.spec(model, version, label, signature, split_key)
        return await self._run(self._flows.regress(examples, spec, context, timeout))

    async def multi_inference(
        self,
        examples: Sequence[Features],
        signatures: str | Sequence[str],
        model: str | None = None,
        *,
        context: Features | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: Timeout = UNSET,
        split_key: SplitKey = None,
    ) -> Inference:
        """See `BlockingClient.multi_inference`."""
        spec = self._flows.spec(model, version, label, split_key=split_key)
        return await self._run(self._flows.multi_inference(examples, signatures, spec, context, timeout))

    async def metadata(
        self,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: Timeout = UNSET,
    ) -> dict[str, Signature]:
        """See `BlockingClient.metadata`."""
        return await self._run(self._flows.metadata(self._flows.spec(model, version, label), timeout))

    async def resolve_version(
        self, model: str | None = None, *, label: str | None = None, timeout: Timeout = UNSET
    ) -> int:
        """See `BlockingClient.resolve_version`."""
        return await self._run(self._flows.resolve_version(self._flows.spec(model, None, label), timeout))

    async def status(
        self, model: str | None = None, *, version: int | None = None, timeout: Timeout = UNSET
    ) -> list[VersionStatus]:
        """See `BlockingClient.status`."""
        return await self._run(self._flows.status(self._flows.spec(model, version), timeout))

    async def wait_until_available(
        self,
        timeout: float | None = DEFAULT_TIMEOUT,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
    ) -> None:
        """See `BlockingClient.wait_until_available`."""
        spec = self._flows.spec(model, version, label)
        await self._run(self._flows.wait_until_available(spec, timeout))

    async def reload_config(self, config: Any, *, timeout: Timeout = UNSET) -> None:
        """See `BlockingClient.reload_config`."""
        await self._run(self._flows.reload_config(config, timeout))

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
