"""Makes the models that models/models.config names, unless they are there: python -m examples.make_models

`digits` reads handwritten digits; version V of the half_plus models answers y = x / 2 + V, so that an answer
tells which version gave it.
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
from tfserving.export.quiet import quiet_tensorflow
from tfserving.repository.versions import check_version_dir

HALF_PLUS = ("half_plus_latest", "half_plus_all", "half_plus_pinned")
HALF_PLUS_VERSIONS = (1, 2, 3)


def make_digits(models_dir: Path) -> Path:
    """Trains and exports `digits` 1, warmed up with real scans."""
    scans, _ = load_scans()
    return export_saved_model(
        train(scans),
        "digits",
        version=1,
        models_dir=models_dir,
        image_bytes=True,
        warmup_data={"image": scans.images[:3]},
    )


def make_half_plus(models_dir: Path, name: str, version: int) -> Path:
    """Exports y = x / 2 + version for float32 x of any length."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half_plus(x: Any) -> dict[str, Any]:
        return {"y": x / 2 + version}

    return export_saved_model(half_plus, name, version=version, models_dir=models_dir, warmup=1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.make_models", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path("models"), metavar="DIR")
    models_dir: Path = parser.parse_args().models_dir

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # removes what is half-made, as Ctrl-C does
    try:
        make("digits", 1, models_dir, lambda: make_digits(models_dir))
        for name in HALF_PLUS:
            for version in HALF_PLUS_VERSIONS:
                make(name, version, models_dir, lambda n=name, v=version: make_half_plus(models_dir, n, v))
    except TfServingError as error:
        print(f"make_models: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_models: interrupted", file=sys.stderr)
        return 130
    return 0


def make(name: str, version: int, models_dir: Path, export: Callable[[], Path]) -> None:
    """Calls `export` unless the version is there, and says which it was."""
    path = models_dir / name / str(version)
    if path.exists():
        check_version_dir(path)
        print(f"  {path} is there already", flush=True)
        return
    print(f"  {path} ... ", end="", flush=True)
    start = time.monotonic()
    with quiet_tensorflow():
        export()
    print(f"made in {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
