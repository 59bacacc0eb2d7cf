"""What clients and traffic share: the argument for the gateway's directory."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

_VARIABLE = "TFSERVING_GATEWAY_DIR"
_DEFAULT = "gateway"


def add_gateway_dir(parser: argparse.ArgumentParser) -> None:
    """Declare --gateway-dir."""
    parser.add_argument(
        "--gateway-dir",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get(_VARIABLE) or _DEFAULT),
        help="the directory that the gateway reads at run time, /etc/envoy/dynamic in its container; "
        f"default: ${_VARIABLE}, or {_DEFAULT}",
    )
