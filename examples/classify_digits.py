"""Lets a server read the held-out scans, over gRPC and over HTTP: python -m examples.classify_digits

Needs a server of `digits`, which `bash quickstart.sh` or examples.make_models makes.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples.digits import Scans, load_scans
from examples.pictures import draw, print_scans
from tf_rpc_client import TfRestClient, TfRpcClient
from tfserving.errors import TfServingError

SHOWN = 8
WANTED_ACCURACY = 0.95


@dataclass(frozen=True)
class Reading:
    """What one API answered: a digit for each scan, int [n], and how long two calls took, in seconds."""

    digits: NDArray[np.int32]
    first: float
    second: float

    def accuracy(self, scans: Scans) -> float:
        return float(np.mean(self.digits == scans.labels))


def read(client: TfRpcClient | TfRestClient, scans: Scans) -> Reading:
    """Two calls with one scan, to see what the first one costs, then all scans in one batch."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        client.infer({"image": scans.images[:1]})
        seconds.append(time.perf_counter() - start)
    answer = client.infer({"image": scans.images}, outputs=["digit"])
    return Reading(answer["digit"], *seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.classify_digits", description=__doc__)
    parser.add_argument("--rpc", default="127.0.0.1:8500", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--rest", default="127.0.0.1:8501", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the scans that are shown into FILE")
    arguments = parser.parse_args()

    _, scans = load_scans()
    try:
        with TfRpcClient(arguments.rpc, "digits") as client:
            over_grpc = read(client, scans)
        with TfRestClient(arguments.rest, "digits") as client:
            over_http = read(client, scans)
    except TfServingError as error:
        print(f"classify_digits: error: {error}", file=sys.stderr)
        return 1

    shown = choose(scans, over_grpc.digits)
    print_scans(scans, over_grpc.digits, shown)
    print(f"\n{len(scans.labels)} held-out scans   accuracy   first call   second call")
    for name, reading in (("gRPC", over_grpc), ("HTTP", over_http)):
        times = f"{1000 * reading.first:7.1f} ms  {1000 * reading.second:9.1f} ms"
        print(f"              {name}     {reading.accuracy(scans):8.4f}   {times}")
    if arguments.png is not None:
        draw(scans, over_grpc.digits, shown, arguments.png)
        print(f"\nthe scans above as a picture: {arguments.png}")

    if over_grpc.accuracy(scans) != over_http.accuracy(scans):
        print("classify_digits: error: gRPC and HTTP do not agree", file=sys.stderr)
        return 1
    if over_grpc.accuracy(scans) <= WANTED_ACCURACY:
        print(
            f"classify_digits: error: the accuracy is not above {WANTED_ACCURACY}: remove models/digits, "
            "and the next run trains again",
            file=sys.stderr,
        )
        return 1
    return 0


def choose(scans: Scans, digits: NDArray[np.int32]) -> list[int]:
    """Numbers of the scans to show: the first ones, then another that was read wrongly, if any was."""
    first = list(range(SHOWN - 1))
    wrong = [int(number) for number in np.flatnonzero(digits != scans.labels) if number not in first]
    return [*first, wrong[0] if wrong else SHOWN - 1]


if __name__ == "__main__":
    sys.exit(main())
