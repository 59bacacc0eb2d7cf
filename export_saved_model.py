#!/usr/bin/env python3
"""Exports a model for TensorFlow Serving: `python export_saved_model.py --help`.

In Python: `from export_saved_model import export_saved_model`.
"""

import sys

try:
    from tfserving.cli.export import main
    from tfserving.export import export_saved_model
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    sys.exit(
        f"export_saved_model.py: error: {error}: run it with .venv/bin/python (made by bash quickstart.sh), "
        "or pip install -r requirements.txt first"
    )

__all__ = ["export_saved_model"]

if __name__ == "__main__":
    sys.exit(main(prog="export_saved_model.py"))
