"""A call as a plan: what to send and when to wait, without doing either.

A plan is a generator. It yields what it needs, a `Send` or a `Pause`, and is given the reply's bytes or the
error that sending raised. The blocking and the asyncio client differ only in how they carry a plan out.

A call that is one question and its answer when all goes well can be a `Ready`, which costs less: it becomes a
plan where something fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, Union

from tfserving.errors import TfServingError

T = TypeVar("T")


class Choice(NamedTuple):
    """Which model a call is for, as the caller said it."""

    model: str | None = None
    version: int | None = None
    label: str | None = None
    signature: str | None = None


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
# What a Send came to.
Outcome = Union[bytes, TfServingError]  # noqa: UP007


@dataclass
class Exchange(Generic[T]):
    """A question in the form that a transport carries, and how to read the answer's bytes.

    `body` is None for a question without one, and where each call brings its own.
    """

    path: str
    body: bytes | None
    decode: Callable[[bytes], T]
    model: str | None


# The question, its body, the seconds that it may take; and how to go on where sending or reading fails:
# `make(*arguments, outcome)` is the plan from there. A plain tuple, for one is made with every call.
Ready = tuple[Exchange[T], bytes, Union[float, None], Callable[..., Plan[T]], tuple[Any, ...]]  # noqa: UP007
Call = Union[Ready[T], Plan[T]]  # noqa: UP007


def carry_out(call: Call[T], send: Callable[..., bytes], sleep: Callable[[float], None]) -> T:
    """Bring a call to its result in the calling thread."""
    if isinstance(call, tuple):
        exchange, body, timeout, make, arguments = call
        reply = None
        try:
            reply = send(exchange.path, body, timeout, exchange.model)
            return exchange.decode(reply)
        except TfServingError as error:
            plan = make(*arguments, error if reply is None else reply)
    else:
        plan = call
    try:
        step = next(plan)
        while True:
            if isinstance(step, Send):
                try:
                    reply = send(*step)
                except TfServingError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(reply)
            else:
                sleep(step.seconds)
                step = plan.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def carry_out_async(
    call: Call[T], send: Callable[..., Awaitable[bytes]], sleep: Callable[[float], Awaitable[object]]
) -> T:
    """Bring a call to its result in the running event loop."""
    if isinstance(call, tuple):
        exchange, body, timeout, make, arguments = call
        reply = None
        try:
            reply = await send(exchange.path, body, timeout, exchange.model)
            return exchange.decode(reply)
        except TfServingError as error:
            plan = make(*arguments, error if reply is None else reply)
    else:
        plan = call
    try:
        step = next(plan)
        while True:
            if isinstance(step, Send):
                try:
                    reply = await send(*step)
                except TfServingError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(reply)
            else:
                await sleep(step.seconds)
                step = plan.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
