"""tfserving show"""

from __future__ import annotations

import pytest

from tests.saved_models import saved_model
from tfserving.cli.show import main
from tfserving.wire import messages

pytestmark = pytest.mark.usefixtures("in_repository")


def test_prints_the_signatures(run, make_version):
    model = messages.SavedModel()
    graph = model.meta_graphs.add()
    graph.meta_info_def.tags.append("serve")
    signature = graph.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    signature.inputs["image"].dtype = 1
    signature.inputs["image"].name = "serving_default_image:0"
    signature.inputs["image"].tensor_shape.dim.add(size=-1)
    signature.inputs["image"].tensor_shape.dim.add(size=64)
    (make_version("a", 1) / "saved_model.pb").write_bytes(model.SerializeToString())
    status, out, err = run(main, "models/a/1")
    assert (status, err) == (0, "")
    assert "serving_default" in out
    assert "image" in out
    assert "(-1, 64)" in out


def test_notes_functions_that_need_xla(run, make_version):
    model = saved_model("Placeholder", "MatMul")
    model.meta_graphs[0].graph_def.node[1].attr["_XlaMustCompile"].b = True
    (make_version("a", 1) / "saved_model.pb").write_bytes(model.SerializeToString())
    status, out, err = run(main, "models/a/1")
    assert (status, "serving_default" in out) == (0, True)
    assert err.startswith("note: the model has functions with jit_compile=True, whose calls fail in servers")
    assert err.endswith("(run_tf_serving.sh: XLA=true)\n")


def test_rejects_a_directory_without_saved_model_pb(run):
    status, out, err = run(main, "models")
    assert (status, out) == (2, "")
    assert "models has no saved_model.pb; copy or export the model again" in err


def test_rejects_a_file_that_is_not_a_model(run, make_version):
    (make_version("a", 1) / "saved_model.pb").write_bytes(b"\xff" * 9)
    status, _, err = run(main, "models/a/1")
    assert status == 2
    assert "models/a/1 has a saved_model.pb that is not a valid SavedModel; copy or export" in err
