"""Calls as flows: what to send and how long to pause, without doing either.

A flow is a generator. It yields a `Request`, which evaluates to the bytes of the response or raises the error
of the transport, a TfServingError or MemoryError; or a `Pause`. Its return value is the result of the call.
Blocking and asyncio clients run the same flows and differ only in how they send and sleep.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, Union

from tfserving.errors import TfServingError

T = TypeVar("T")


@dataclass(slots=True)
class Request(Generic[T]):
    """A request in the form that a transport sends, and how to read its response.

    Attributes:
        path: a gRPC method, or the path of a URL.
        body: None for a request without one: a GET.
        decode: from the bytes of the response to the result; may raise ProtocolError.
        model: for error messages.
        timeout: in seconds, None for no limit; set before each attempt.
    """

    path: str
    body: bytes | None
    decode: Callable[[bytes], T]
    model: str | None
    timeout: float | None = None


class Pause(NamedTuple):
    """Wait for this many seconds."""

    seconds: float


Step = Union[Request[Any], Pause]  # noqa: UP007 - evaluated at run time
Flow = Generator[Step, Any, T]


def run(flow: Flow[T], send: Callable[[Request[Any]], bytes], sleep: Callable[[float], None]) -> T:
    """Run a flow in the calling thread and return its result."""
    try:
        step = next(flow)
        while True:
            if isinstance(step, Request):
                try:
                    response = send(step)
                except (TfServingError, MemoryError) as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
            else:
                sleep(step.seconds)
                step = flow.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def run_async(
    flow: Flow[T],
    send: Callable[[Request[Any]], Awaitable[bytes]],
    sleep: Callable[[float], Awaitable[object]],
) -> T:
    """Run a flow in the running event loop and return its result."""
    try:
        step = next(flow)
        while True:
            if isinstance(step, Request):
                try:
                    response = await send(step)
                except (TfServingError, MemoryError) as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
            else:
                await sleep(step.seconds)
                step = flow.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
