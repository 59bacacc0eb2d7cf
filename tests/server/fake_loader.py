"""A servable and a loader without TensorFlow."""

from __future__ import annotations

import threading

import numpy as np

from tfserving.errors import TfServingError, UnavailableError
from tfserving.server.core.servable import NotKnownFastError, check_dtypes
from tfserving.server.futures import CompletedFuture
from tfserving.wire import messages
from tfserving.wire.dtypes import DType
from tfserving.wire.signatures import CLASSIFY_METHOD, PREDICT_METHOD, REGRESS_METHOD, Signature, TensorInfo

TIMES = Signature(
    "serving_default",
    PREDICT_METHOD,
    {"x": TensorInfo("x", DType.DT_FLOAT, (None,), "x:0")},
    {
        "y": TensorInfo("y", DType.DT_FLOAT, (None,), "y:0"),
        "version": TensorInfo("version", DType.DT_INT64, (), "v:0"),
    },
)
WITH_DEFAULT = Signature(
    "with_default",
    PREDICT_METHOD,
    {"x": TIMES.inputs["x"], "k": TensorInfo("k", DType.DT_FLOAT, (), "k:0")},
    {"y": TIMES.outputs["y"]},
    {"k": np.float32(7)},
)


EXAMPLES = {"inputs": TensorInfo("inputs", DType.DT_STRING, (None,), "e:0")}
CLASSIFY = Signature(
    "classify",
    CLASSIFY_METHOD,
    EXAMPLES,
    {
        "classes": TensorInfo("classes", DType.DT_STRING, (None, 2), "c:0"),
        "scores": TensorInfo("scores", DType.DT_FLOAT, (None, 2), "s:0"),
    },
)
MISNAMED = Signature("misnamed", REGRESS_METHOD, EXAMPLES, CLASSIFY.outputs)
REGRESS = Signature(
    "regress", REGRESS_METHOD, EXAMPLES, {"outputs": TensorInfo("outputs", DType.DT_FLOAT, (None, 1), "o:0")}
)


class FakeServable:
    """y = x * version; for examples: their feature "x" (float), times the version.

    Runs in the event loop only if a test sets `is_fast`.
    """

    def __init__(self, version):
        self.version = version
        self.is_fast = False
        self.closed = False
        self.signatures = {
            signature.name: signature for signature in (TIMES, WITH_DEFAULT, CLASSIFY, MISNAMED, REGRESS)
        }
        self.signature_def_map = messages.SignatureDefMap()
        self.signature_def_map.signature_def["serving_default"].method_name = PREDICT_METHOD

    def submit(self, context, signature, inputs, outputs):
        assert not self.closed, "used after close"
        if context.in_event_loop and not self.is_fast:
            raise NotKnownFastError
        check_dtypes(signature, inputs)
        context.run_seconds = 0.0
        return CompletedFuture(self.compute(signature, inputs, outputs))

    def compute(self, signature, inputs, outputs):
        """The outputs; tests replace it."""
        if "inputs" in inputs:
            return {name: self._of_examples(inputs["inputs"])[name] for name in outputs}
        if np.isnan(inputs["x"]).any():
            raise TfServingError("the graph says no", code="INVALID_ARGUMENT")
        values = {
            "y": inputs["x"] * np.float32(inputs.get("k", self.version)),
            "version": np.asarray(self.version),
        }
        return {name: values[name] for name in outputs}

    def _of_examples(self, serialized):
        parsed = [
            messages.Example.FromString(one).features.feature["x"].float_list.value[0] for one in serialized
        ]
        scores = np.array([[x, x * self.version] for x in parsed], np.float32)
        return {
            "scores": scores,
            "classes": np.array([[b"once", b"times"]] * len(parsed), object),
            "outputs": scores[:, 1:],
        }

    def close(self):
        self.closed = True


class FakeLoader:
    """Loads immediately; `broken` versions raise their errors; `hold` makes loads wait for `release`."""

    def __init__(self):
        self.loaded = {}
        self.broken = {}
        self.calls = []
        self._gate = threading.Event()
        self._gate.set()

    def hold(self):
        self._gate.clear()

    def release(self):
        self._gate.set()

    def __call__(self, model, version, path):
        self.calls.append((model, version))
        assert self._gate.wait(30)
        errors = self.broken.get((model, version))
        if errors:
            raise errors.pop(0)
        servable = self.loaded[model, version] = FakeServable(version)
        return servable


def flaky(times):
    """Errors for so many attempts to load."""
    return [UnavailableError("the disk is not mounted") for _ in range(times)]
