import asyncio

from tfserving.client.flow import Pause, Request, run, run_async
from tfserving.errors import TfServingError


def run_both(make_flow, send):
    """The result of a flow by the blocking and the asyncio driver, and what was sent and slept."""
    steps = []

    def record(request):
        steps.append(request.path)
        return send(request.path)

    async def record_async(request):
        return record(request)

    async def sleep_async(seconds):
        steps.append(seconds)

    result = run(make_flow(), record, steps.append)
    assert result == asyncio.run(run_async(make_flow(), record_async, sleep_async))
    half = len(steps) // 2
    assert steps[:half] == steps[half:]
    return result, steps[:half]


def test_both_drivers_send_pause_and_throw_errors_into_the_flow():
    def request(path):
        return Request(path, b"", bytes.decode, "m")

    def flow():
        try:
            yield request("a")
        except TfServingError:
            yield Pause(3)
        return (yield request("b"))

    def send(path):
        if path == "a":
            raise TfServingError("no a")
        return path.encode()

    assert run_both(flow, send) == (b"b", ["a", 3, "b"])
