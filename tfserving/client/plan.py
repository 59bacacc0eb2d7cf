"""A call as a plan: what to send and when to wait, without doing either.

A plan is a generator. It yields what it needs, a `Send` or a `Pause`, and is given the reply's bytes or the
error that sending raised. The blocking and the asyncio client differ only in how they carry a plan out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, Union

from tfserving.errors import TfServingError

T = TypeVar("T")


class Send(NamedTuple):
    """Send `body` to `path` and come back with the reply's bytes, or raise a TfServingError.

    `path` is a gRPC method or the path of a URL; a REST call without a body is a GET. `timeout` is in
    seconds, None for no limit. `model` is for error messages.
    """

    path: str
    body: bytes | None
    timeout: float | None
    model: str | None


class Pause(NamedTuple):
    """Wait so many seconds."""

    seconds: float


Step = Union[Send, Pause]  # noqa: UP007 - evaluated at run time
Plan = Generator[Step, Any, T]


@dataclass
class Exchange(Generic[T]):
    """A question in the form that a transport carries, and how to read the answer's bytes.

    `body` is None for a question without one, and where each call brings its own.
    """

    path: str
    body: bytes | None
    decode: Callable[[bytes], T]
    model: str | None


def carry_out(plan: Plan[T], send: Callable[[Send], bytes], sleep: Callable[[float], None]) -> T:
    """Run a plan to its result in the calling thread."""
    try:
        step = next(plan)
        while True:
            if type(step) is Send:
                try:
                    reply = send(step)
                except TfServingError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(reply)
            else:
                sleep(step.seconds)  # type: ignore[union-attr]
                step = plan.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def carry_out_async(
    plan: Plan[T], send: Callable[[Send], Awaitable[bytes]], sleep: Callable[[float], Awaitable[object]]
) -> T:
    """Run a plan to its result in the running event loop."""
    try:
        step = next(plan)
        while True:
            if type(step) is Send:
                try:
                    reply = await send(step)
                except TfServingError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(reply)
            else:
                await sleep(step.seconds)  # type: ignore[union-attr]
                step = plan.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
