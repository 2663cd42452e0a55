#!/usr/bin/env bash
# tensorflow-cpu 2.21.0 with keras 3.15.1
#
# convert_variables_to_constants_v2 inlines the functions of a model, so that a frozen graph has its convolutions as
# nodes. A grouped convolution of Keras 3 stays behind a StatefulPartitionedCall: Keras puts it into a function that XLA
# must compile, with which inlining stops. Tools that look for Conv2D nodes do not see it.
#
# Seen:
#   groups=1: Conv2D in the graph
#   groups=2: Conv2D in a function, called by StatefulPartitionedCall with _XlaMustCompile
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q tensorflow-cpu==2.21.0 keras==3.15.1
export TF_CPP_MIN_LOG_LEVEL=3

venv/bin/python - 2>log <<'PYTHON'
import sys

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def where(groups):
    """Tells where the convolution of a frozen model is."""
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 3, groups=groups)])
    function = tf.function(model).get_concrete_function(tf.TensorSpec([None, 8, 8, 4]))
    graph = convert_variables_to_constants_v2(function).graph.as_graph_def()
    if any(node.op == "Conv2D" for node in graph.node):
        return "Conv2D in the graph"
    (called,) = (each for each in graph.library.function if any(node.op == "Conv2D" for node in each.node_def))
    (call,) = (node for node in graph.node if node.attr["f"].func.name == called.signature.name)
    return f"Conv2D in a function, called by {call.op}" + " with _XlaMustCompile" * call.attr["_XlaMustCompile"].b


found = {groups: where(groups) for groups in (1, 2)}
for groups, text in found.items():
    print(f"groups={groups}: {text}")
seen = {
    1: "Conv2D in the graph",
    2: "Conv2D in a function, called by StatefulPartitionedCall with _XlaMustCompile",
}
sys.exit(0 if found == seen else 1)
PYTHON
