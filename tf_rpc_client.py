#!/usr/bin/env python3
"""Call a served model: `python tf_rpc_client.py --help`.

In Python: `from tf_rpc_client import TfRpcClient`; the public names are those of `tfserving.client`.
"""

import sys
from typing import TYPE_CHECKING

try:
    import tfserving.client
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    sys.exit(
        f"tf_rpc_client.py: error: {error}; run it with .venv/bin/python (created by bash quickstart.sh), "
        "or run pip install -r requirements.txt first"
    )

if TYPE_CHECKING:
    from tfserving.client import *  # noqa: F403
else:  # hidden from type checkers, as in tfserving.client
    __all__ = tfserving.client.__all__

    def __getattr__(name):
        return getattr(tfserving.client, name)


if __name__ == "__main__":
    RPC_ADDRESS = "127.0.0.1:8500"
    REST_ADDRESS = "127.0.0.1:8501"  # for --rest
    MODEL_NAME = "digits"

    from tfserving.cli.call import main

    sys.exit(main(prog="tf_rpc_client.py", address=RPC_ADDRESS, rest_address=REST_ADDRESS, model=MODEL_NAME))
