"""Classify held-out scans of handwritten digits over gRPC and over REST: python -m examples.classify_digits

Needs a server of the `digits` model, which `bash quickstart.sh` or examples.make_models creates.
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
from examples.pictures import print_scans, write_png
from tf_rpc_client import TfRestClient, TfRpcClient
from tfserving.errors import TfServingError

SHOWN = 8
MIN_ACCURACY = 0.95


@dataclass(frozen=True)
class Result:
    """Predicted digits over one API, int [n], and the duration of the first two requests in seconds."""

    digits: NDArray[np.int32]
    first: float
    second: float

    def accuracy(self, scans: Scans) -> float:
        return float(np.mean(self.digits == scans.labels))


def classify(client: TfRpcClient | TfRestClient, scans: Scans) -> Result:
    """Send one scan twice, to measure the first request, then all scans in one batch."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        client.infer({"image": scans.images[:1]})
        seconds.append(time.perf_counter() - start)
    outputs = client.infer({"image": scans.images}, outputs=["digit"])
    return Result(outputs["digit"], *seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.classify_digits", description=__doc__)
    parser.add_argument("--rpc", default="127.0.0.1:8500", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--rest", default="127.0.0.1:8501", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write a picture of the scans to FILE")
    arguments = parser.parse_args()

    _, scans = load_scans()
    try:
        with TfRpcClient(arguments.rpc, "digits") as client:
            over_grpc = classify(client, scans)
        with TfRestClient(arguments.rest, "digits") as client:
            over_rest = classify(client, scans)
    except TfServingError as error:
        print(f"classify_digits: error: {error}", file=sys.stderr)
        return 1

    shown = choose_scans(scans, over_grpc.digits)
    print_scans(scans, over_grpc.digits, shown)
    print(f"\n{len(scans.labels)} held-out scans   accuracy   1st request   2nd request")
    for name, result in (("gRPC", over_grpc), ("REST", over_rest)):
        times = f"{1000 * result.first:8.1f} ms  {1000 * result.second:9.1f} ms"
        print(f"              {name}     {result.accuracy(scans):8.4f}   {times}")
    if arguments.png is not None:
        write_png(scans, over_grpc.digits, shown, arguments.png)
        print(f"\nwrote the scans above to {arguments.png}")

    if over_grpc.accuracy(scans) != over_rest.accuracy(scans):
        print("classify_digits: error: gRPC and REST predict different digits", file=sys.stderr)
        return 1
    if over_grpc.accuracy(scans) <= MIN_ACCURACY:
        print(
            f"classify_digits: error: the accuracy is not above {MIN_ACCURACY}; remove models/digits and run "
            "quickstart.sh to train again",
            file=sys.stderr,
        )
        return 1
    return 0


def choose_scans(scans: Scans, digits: NDArray[np.int32]) -> list[int]:
    """Return the indices of the scans to show: the first ones, then a misclassified one if there is any."""
    first = list(range(SHOWN - 1))
    wrong = [int(number) for number in np.flatnonzero(digits != scans.labels) if number not in first]
    return [*first, wrong[0] if wrong else SHOWN - 1]


if __name__ == "__main__":
    sys.exit(main())
