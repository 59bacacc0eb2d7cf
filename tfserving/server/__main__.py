"""python -m tfserving.server"""

import sys

from tfserving.server.main import main

if __name__ == "__main__":
    sys.exit(main())
