#!/usr/bin/env python3
"""Exports a model for TensorFlow Serving: `python export_saved_model.py --help`.

In Python: `from export_saved_model import export_saved_model`.
"""

import shlex
import sys
from pathlib import Path

try:
    from tfserving.cli.export import main
    from tfserving.export import export_saved_model
    from tfserving.repository.versions import list_versions
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    sys.exit(
        f"export_saved_model.py: error: {error}; run it with .venv/bin/python, which quickstart.sh creates, "
        "or run: pip install -r requirements.txt"
    )

__all__ = ["export_saved_model"]


def next_commands(path: Path) -> str:
    """The scripts that build an image with the version at `path` and start a server."""
    settings = f"MODEL_NAME={shlex.quote(path.parent.name)}"
    if path.parent.parent != Path("models"):
        settings = f"MODELS_DIR={shlex.quote(str(path.parent.parent))} {settings}"
    # build.sh packs the newest version by default.
    is_newest = path.name == str(list_versions(path.parent)[-1])
    version = "" if is_newest else f"MODEL_VERSIONS={path.name} "
    return f"  {version}{settings} bash build.sh\n  {settings} bash run_tf_serving.sh"


if __name__ == "__main__":
    sys.exit(main(prog="export_saved_model.py", next_commands=next_commands))
