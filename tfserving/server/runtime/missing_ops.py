"""The ops of versions that the TensorFlow of this environment lacks, found in a new process.

Loading the libraries of ops registers them for the whole process, and importing TensorFlow takes seconds, so
tools do neither in their own process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tfserving
from tfserving.errors import ExportError
from tfserving.repository.graph_ops import find_ops
from tfserving.server.runtime import op_libraries
from tfserving.wire.graph_files import read_graph_file

# With -m, Python would warn that the package imports the module before it runs.
_PROGRAM = "import sys; from tfserving.server.runtime.missing_ops import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class MissingOp:
    """An op that the embedded server lacks.

    Attributes:
        name: its name in the graph.
        explanation: a sentence: which package has it, and what to do.
        is_served: whether tensorflow_model_server has it anyway: the ops of TF Text and Decision Forests.
    """

    name: str
    explanation: str
    is_served: bool


def find_missing_ops(version_dirs: Iterable[Path]) -> tuple[str, dict[Path, list[MissingOp]]]:
    """TensorFlow's version, and the ops that each of these versions needs and TensorFlow lacks.

    Raises:
        ExportError: the process fails, as without TensorFlow.
    """
    paths = list(version_dirs)
    # With -c, the working directory is first on sys.path: the process finds this package in a checkout too.
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *(os.path.abspath(path) for path in paths)],
        cwd=Path(tfserving.__file__).resolve().parents[1],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise ExportError(f"cannot look up ops in TensorFlow: {last}; install tfserving-toolkit[export]")
    version, found = json.loads(result.stdout.strip().splitlines()[-1])
    return version, {
        path: [MissingOp(*each) for each in missing] for path, missing in zip(paths, found, strict=True)
    }


def main(version_dirs: Sequence[str]) -> int:
    """Print TensorFlow's version and the missing ops of each version as one line of JSON."""
    import tensorflow as tf

    found = []
    for path in version_dirs:
        model = read_graph_file(path)
        missing: set[str] = set()
        for meta_graph in model.meta_graphs:
            missing |= op_libraries.load_libraries_for(meta_graph.graph_def)
        # Functions that no signature calls, such as those for training, do not matter.
        names = sorted(missing & find_ops(model).names)
        found.append([(name, op_libraries.explain([name]), op_libraries.is_served(name)) for name in names])
    print(json.dumps([tf.__version__, found]))
    return 0
