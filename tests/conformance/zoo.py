"""Exports the model zoo that the conformance cases call: small SavedModels that cover what a server must get right.

    python zoo.py DIR        writes DIR/<model>/<version>/ and DIR/models.config

The base paths in models.config are those under DIR. TensorFlow 2.16 or newer.
"""
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import tensorflow as tf  # noqa: E402

v1 = tf.compat.v1

DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64",
          "uint8", "uint16", "uint32", "uint64", "bool", "string", "complex64")


def spec(*shape, dtype=tf.float32, name=None):
    return tf.TensorSpec(shape, dtype, name=name)


def save(module, path, **signatures):
    tf.saved_model.save(module, path, signatures=signatures)


def half_plus(out, name, version, offset):
    """y = x/2 + offset, TF1 style: predict, regress and classify signatures, x parsed from tf.Example."""
    with tf.Graph().as_default(), v1.Session() as session:
        a = v1.get_variable("a", initializer=0.5)
        b = v1.get_variable("b", initializer=float(offset))
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32),
                                                "x2": tf.io.FixedLenFeature([1], tf.float32, [0.0])})
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(a * x, b, name="y")
        labels = tf.strings.as_string(y, precision=1)
        info = v1.saved_model.build_tensor_info
        regress = v1.saved_model.signature_def_utils.build_signature_def(
            {"inputs": info(examples)}, {"outputs": info(y)}, "tensorflow/serving/regress")
        classify = v1.saved_model.signature_def_utils.build_signature_def(
            {"inputs": info(examples)}, {"scores": info(y)}, "tensorflow/serving/classify")
        classify_labels = v1.saved_model.signature_def_utils.build_signature_def(
            {"inputs": info(examples)}, {"classes": info(labels), "scores": info(y)}, "tensorflow/serving/classify")
        predict = v1.saved_model.signature_def_utils.build_signature_def(
            {"x": info(x)}, {"y": info(y)}, "tensorflow/serving/predict")
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(os.path.join(out, name, str(version)))
        builder.add_meta_graph_and_variables(session, ["serve"], {
            "serving_default": predict, "regress_x_to_y": regress,
            "classify_x_to_y": classify, "classify_labels": classify_labels})
        builder.save()


def types(out):
    """One identity signature per dtype, each named after its dtype."""
    module = tf.Module()
    signatures = {}
    for dtype in DTYPES:
        fn = tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[spec(None, dtype=tf.as_dtype(dtype), name="x")])
        setattr(module, f"f_{dtype}", fn)
        signatures[dtype] = fn
    signatures["serving_default"] = signatures["float32"]
    save(module, os.path.join(out, "types", "1"), **signatures)


def multi(out):
    """Two inputs, two outputs; a second signature with only one of the inputs."""
    module = tf.Module()
    module.both = tf.function(lambda a, b: {"sum": tf.reduce_sum(a, 1) + tf.cast(b, tf.float32), "b2": b * 2},
                              input_signature=[spec(None, 3, name="a"), spec(None, dtype=tf.int32, name="b")])
    module.only_a = tf.function(lambda a: {"out": a * 10.0}, input_signature=[spec(None, 3, name="a")])
    save(module, os.path.join(out, "multi", "1"), serving_default=module.both, only_a=module.only_a)


def text(out):
    """Strings in and out, and outputs whose names end in _bytes (base64 over REST)."""
    module = tf.Module()
    module.f = tf.function(lambda s: {"upper": tf.strings.upper(s), "length": tf.strings.length(s), "raw_bytes": s},
                           input_signature=[spec(None, dtype=tf.string, name="s")])
    save(module, os.path.join(out, "text", "1"), serving_default=module.f)


def shapes(out):
    """Scalars, unknown rank, no batch dimension, matrices and an empty result."""
    module = tf.Module()
    module.scalar = tf.function(lambda x: {"y": x + 1.0}, input_signature=[spec(name="x")])
    module.any = tf.function(lambda x: {"y": x * 2.0}, input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
    module.matrix = tf.function(lambda x: {"y": tf.transpose(x)}, input_signature=[spec(2, 3, name="x")])
    module.image = tf.function(lambda x: {"mean": tf.reduce_mean(x, [1, 2, 3])}, input_signature=[spec(None, None, None, 3, name="x")])
    module.empty = tf.function(lambda x: {"y": x[:0]}, input_signature=[spec(None, name="x")])
    module.total = tf.function(lambda x: {"total": tf.reduce_sum(x)}, input_signature=[spec(None, name="x")])
    save(module, os.path.join(out, "shapes", "1"), serving_default=module.any, scalar=module.scalar,
         matrix=module.matrix, image=module.image, empty=module.empty, total=module.total)


def numbers(out):
    """Values that JSON finds hard: NaN, infinities, subnormals, 2**63-1, -0.0."""
    module = tf.Module()
    module.f = tf.function(lambda x: {"div": tf.math.divide(x, tf.zeros_like(x)), "root": tf.sqrt(-tf.abs(x)), "neg": -x * 0.0},
                           input_signature=[spec(None, name="x")])
    module.ints = tf.function(lambda x: {"y": x, "big": tf.fill(tf.shape(x), tf.constant(2**63 - 1, tf.int64))},
                              input_signature=[spec(None, dtype=tf.int64, name="x")])
    save(module, os.path.join(out, "numbers", "1"), serving_default=module.f, ints=module.ints)


def failing(out):
    """Fails inside the graph when x is negative."""
    module = tf.Module()

    def body(x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x >= 0), [tf.constant("x must not be negative")])]):
            return {"y": tf.sqrt(x)}
    module.f = tf.function(body, input_signature=[spec(None, name="x")])
    save(module, os.path.join(out, "failing", "1"), serving_default=module.f)


def versions(out):
    """Version v answers x * v, so a reply tells which version served it."""
    for version in (1, 2, 3, 10):
        module = tf.Module()
        module.f = tf.function(lambda x, k=float(version): {"y": x * k}, input_signature=[spec(None, name="x")])
        save(module, os.path.join(out, "versions", str(version)), serving_default=module.f)
    os.makedirs(os.path.join(out, "versions", "not_a_version"), exist_ok=True)
    open(os.path.join(out, "versions", "not_a_version", "README"), "w").close()


def no_default(out):
    """No serving_default signature."""
    module = tf.Module()
    module.f = tf.function(lambda x: {"y": x}, input_signature=[spec(None, name="x")])
    save(module, os.path.join(out, "no_default", "1"), only=module.f)


CONFIG = '''model_config_list {
  config { name: "half_plus_two" base_path: "DIR/half_plus_two" model_platform: "tensorflow" }
  config { name: "types" base_path: "DIR/types" model_platform: "tensorflow" }
  config { name: "multi" base_path: "DIR/multi" model_platform: "tensorflow" }
  config { name: "text" base_path: "DIR/text" model_platform: "tensorflow" }
  config { name: "shapes" base_path: "DIR/shapes" model_platform: "tensorflow" }
  config { name: "numbers" base_path: "DIR/numbers" model_platform: "tensorflow" }
  config { name: "failing" base_path: "DIR/failing" model_platform: "tensorflow" }
  config { name: "no_default" base_path: "DIR/no_default" model_platform: "tensorflow" }
  config { name: "newest" base_path: "DIR/versions" model_platform: "tensorflow" }
  config { name: "newest_two" base_path: "DIR/versions" model_platform: "tensorflow" model_version_policy { latest { num_versions: 2 } } }
  config { name: "every" base_path: "DIR/versions" model_platform: "tensorflow" model_version_policy { all {} } }
  config {
    name: "chosen" base_path: "DIR/versions" model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 3 } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: "canary" value: 3 }
  }
}
'''


def main(out):
    out = os.path.abspath(out)
    half_plus(out, "half_plus_two", 123, 2)
    for export in (types, multi, text, shapes, numbers, failing, versions, no_default):
        export(out)
    with open(os.path.join(out, "models.config"), "w") as file:
        file.write(CONFIG.replace("DIR", out))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
