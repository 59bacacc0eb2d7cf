"""python -m tfserving.server"""

import logging
import os
import sys

from tfserving.server.main import main

if __name__ == "__main__":
    code = main()
    # Everything is closed by now, and taking TensorFlow apart would keep whoever stops the server waiting.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
