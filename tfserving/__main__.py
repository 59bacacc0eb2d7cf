"""python -m tfserving"""

import sys

from tfserving.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
