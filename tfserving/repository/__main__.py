"""Shim until the subcommands are split."""

import sys

from tfserving.cli.repository import main

if __name__ == "__main__":
    sys.exit(main())
