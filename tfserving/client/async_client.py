"""The methods of the two asyncio clients: those of `BlockingClient`, to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tfserving.client.flow import Call, Choice, carry_out_async
from tfserving.client.options import UNSET, Timeout

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np

    from tfserving.client.call_flows import Calls
    from tfserving.client.codec import Inference
    from tfserving.client.features import Features
    from tfserving.client.types import Classification, VersionStatus
    from tfserving.wire.predict import Arrays
    from tfserving.wire.signatures import Signature

T = TypeVar("T")
Self = TypeVar("Self", bound="AsyncClient")


class AsyncClient:
    """Calls to a server as coroutines; arguments, results and errors are those of `BlockingClient`.

    Tasks may share a client. Its connections belong to the event loop that runs the call: in another loop it
    makes new ones.
    """

    @property
    def _calls(self) -> Calls:
        raise NotImplementedError

    async def _send(self, path: str, body: bytes | None, timeout: float | None, model: str | None) -> bytes:
        """See `plan.Send`."""
        raise NotImplementedError

    async def close(self) -> None:
        """See `BlockingClient.close`."""
        raise NotImplementedError

    async def _run(self, call: Call[T]) -> T:
        return await carry_out_async(call, self._send, asyncio.sleep)

    async def infer(self, inputs: Any, **options: Any) -> Arrays:
        """See `BlockingClient.infer`."""
        return await self.predict(inputs, **options)

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
    ) -> Arrays:
        """See `BlockingClient.predict`."""
        return await self._run(
            self._calls.predict(inputs, model, version, label, signature, outputs, timeout)
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
    ) -> list[list[Classification]]:
        """See `BlockingClient.classify`."""
        choice = Choice(model, version, label, signature)
        return await self._run(self._calls.classify(examples, choice, context, timeout))

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
    ) -> np.ndarray[Any, Any]:
        """See `BlockingClient.regress`."""
        choice = Choice(model, version, label, signature)
        return await self._run(self._calls.regress(examples, choice, context, timeout))

    async def multi_inference(
        self,
        examples: Sequence[Features],
        signatures: Sequence[str],
        model: str | None = None,
        *,
        context: Features | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: Timeout = UNSET,
    ) -> Inference:
        """See `BlockingClient.multi_inference`."""
        choice = Choice(model, version, label)
        return await self._run(self._calls.multi_inference(examples, signatures, choice, context, timeout))

    async def metadata(
        self,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: Timeout = UNSET,
    ) -> dict[str, Signature]:
        """See `BlockingClient.metadata`."""
        return await self._run(self._calls.metadata(Choice(model, version, label), timeout))

    async def status(
        self, model: str | None = None, *, version: int | None = None, timeout: Timeout = UNSET
    ) -> list[VersionStatus]:
        """See `BlockingClient.status`."""
        return await self._run(self._calls.status(Choice(model, version), timeout))

    async def wait_until_available(
        self,
        timeout: float | None = 60.0,
        model: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
    ) -> None:
        """See `BlockingClient.wait_until_available`."""
        await self._run(self._calls.wait_until_available(Choice(model, version, label), timeout))

    async def reload_config(self, config: Any, *, timeout: Timeout = UNSET) -> None:
        """See `BlockingClient.reload_config`."""
        await self._run(self._calls.reload_config(config, timeout))

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
