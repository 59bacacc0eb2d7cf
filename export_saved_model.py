#!/usr/bin/env python3
"""Exports a model for TensorFlow Serving: `python export_saved_model.py --help`.

In Python: `from export_saved_model import export_saved_model`.
"""

import sys

from tfserving.export import export_saved_model
from tfserving.export.command import main

__all__ = ["export_saved_model"]

if __name__ == "__main__":
    sys.exit(main())
