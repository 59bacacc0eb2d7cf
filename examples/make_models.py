"""Create the models of models/models.config that do not exist yet: python -m examples.make_models

`digits` classifies handwritten digits. Version V of a half_plus model returns y = x / 2 + V, so that a
result shows which version served the request.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.digits import load_scans, train
from export_saved_model import export_saved_model
from tfserving.errors import TfServingError
from tfserving.export.tf_logging import quiet_tensorflow
from tfserving.repository.completeness import check_version_dir

HALF_PLUS = ("half_plus_latest", "half_plus_all", "half_plus_pinned")
HALF_PLUS_VERSIONS = (1, 2, 3)


def make_digits(models_dir: Path, name: str, version: int) -> Path:
    """Train and export `digits`, with a signature for image files and real scans as warmup requests."""
    scans, _ = load_scans()
    return export_saved_model(
        train(scans),
        name,
        version=version,
        models_dir=models_dir,
        image_bytes=True,
        warmup_data={"image": scans.images[:3]},
    )


def make_half_plus(models_dir: Path, name: str, version: int) -> Path:
    """Export y = x / 2 + version for x float32 [n]."""
    import tensorflow as tf

    def half_plus(x: Any) -> dict[str, Any]:
        return {"y": x / 2 + version}

    function = tf.function(half_plus, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    return export_saved_model(function, name, version=version, models_dir=models_dir)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.make_models", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path("models"), metavar="DIR")
    models_dir: Path = parser.parse_args().models_dir

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make_version(models_dir, "digits", 1, make_digits)
        for name in HALF_PLUS:
            for version in HALF_PLUS_VERSIONS:
                make_version(models_dir, name, version, make_half_plus)
    except TfServingError as error:
        print(f"make_models: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_models: interrupted", file=sys.stderr)
        return 130
    return 0


def make_version(models_dir: Path, name: str, version: int, export: Callable[[Path, str, int], Path]) -> None:
    """Call `export` unless the version exists, and print the progress."""
    path = models_dir / name / str(version)
    if path.exists():
        check_version_dir(path)
        print(f"  {path} exists", flush=True)
        return
    print(f"  {path} ... ", end="", flush=True)
    start = time.monotonic()
    with quiet_tensorflow():
        export(models_dir, name, version)
    print(f"created in {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
