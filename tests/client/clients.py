"""The four clients with the same blocking interface."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

from tfserving import client


def make_client(kind: str, address: Any, model: str | None, **options: Any) -> Any:
    classes = {
        "rpc": client.TfRpcClient,
        "aio": client.AsyncTfRpcClient,
        "rest": client.TfRestClient,
        "aio_rest": client.AsyncTfRestClient,
    }
    return classes[kind](address, model, **options)


class Blocking:
    """Runs the coroutines and asynchronous iterators of an asyncio client until they complete."""

    def __init__(self, wrapped: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.wrapped = wrapped
        self.loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.wrapped, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            if hasattr(result, "__anext__"):
                return self._iterate(result)
            return self.loop.run_until_complete(result) if inspect.isawaitable(result) else result

        return call

    def _iterate(self, results: Any) -> Iterator[Any]:
        try:
            while True:
                yield self.loop.run_until_complete(anext(results))
        except StopAsyncIteration:
            pass
        finally:
            self.loop.run_until_complete(results.aclose())
