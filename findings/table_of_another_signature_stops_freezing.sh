#!/usr/bin/env bash
# tensorflow-cpu 2.21.0 with keras 3.15.1.
#
# convert_variables_to_constants_v2 cannot freeze a function while the default graph holds a lookup table that has
# nothing to do with it: new functions take over the collections of the default graph, and Grappler looks for the
# initializer of the table among the nodes of the function. The same happens to every signature of a SavedModel of
# TensorFlow 1 in whose graph another signature uses a table.
#
# Seen:
#   in an empty graph: frozen
#   in a graph with a table: ValueError: Failed to import metagraph, check error log for more info.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q tensorflow-cpu==2.21.0 keras==3.15.1

TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

tf1 = tf.compat.v1


def freeze():
    """Freezes a dense layer; returns what is said."""
    weights = tf.Variable([[1.0], [2.0]])
    function = tf.function(lambda values: tf.matmul(values, weights), autograph=False)
    try:
        convert_variables_to_constants_v2(function.get_concrete_function(tf.TensorSpec([None, 2], tf.float32)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "frozen"


said = {}
for name, has_table in (("in an empty graph", False), ("in a graph with a table", True)):
    with tf.Graph().as_default():
        if has_table:
            tf1.lookup.StaticHashTable(tf1.lookup.KeyValueTensorInitializer([1], [2]), 0)
        with tf.__internal__.eager_context.eager_mode():
            said[name] = freeze()
    print(f"{name}: {said[name]}")
seen = said["in an empty graph"] == "frozen" and "Failed to import metagraph" in said["in a graph with a table"]
raise SystemExit(0 if seen else "the behaviour has changed")
PYTHON
