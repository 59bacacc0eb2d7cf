"""python -m tfserving"""

import sys

from tfserving.cli.dispatch import main

if __name__ == "__main__":
    sys.exit(main())
