#!/usr/bin/env bash
# tensorflow-cpu 2.21.0 with keras 3.15.1, and tf_keras 2.21.0 (Keras 2).
#
# A model that Keras 2 trained with one of its "legacy" optimizers (the only ones before Keras 2.11) and saved as a
# SavedModel cannot be loaded by tf.saved_model.load where Keras 2 is not installed: the optimizer becomes a plain
# object, which is then asked for the slots of its variables. The signature to serve needs neither; the loader of
# TensorFlow 1 loads it, and computes what Keras 2 computed.
#
# Seen:
#   tf.saved_model.load: AttributeError: '_UserObject' object has no attribute 'add_slot'
#   tf.compat.v1.saved_model.load: greatest difference 0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q tensorflow-cpu==2.21.0 keras==3.15.1 tf_keras==2.21.0
export TF_CPP_MIN_LOG_LEVEL=3

TF_USE_LEGACY_KERAS=1 venv/bin/python - <<'PYTHON'
import numpy as np
import tensorflow as tf

inputs = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(2)])
model.compile(tf.keras.optimizers.legacy.Adam(), "mse")
model.fit(inputs, inputs[:, :2], verbose=0)
model.save("model", save_format="tf")
np.savez("expected.npz", inputs=inputs, outputs=model.predict(inputs, verbose=0))
PYTHON

venv/bin/pip uninstall -q -y tf_keras
venv/bin/python - <<'PYTHON'
import numpy as np
import tensorflow as tf

try:
    tf.saved_model.load("model")
    said = "nothing"
except AttributeError as error:
    said = f"AttributeError: {error}"
print("tf.saved_model.load:", said)

tf1, expected = tf.compat.v1, np.load("expected.npz")
with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
    signature = tf1.saved_model.load(session, ["serve"], "model").signature_def["serving_default"]
    (output,), (given,) = signature.outputs.values(), signature.inputs.values()
    difference = np.abs(session.run(output.name, {given.name: expected["inputs"]}) - expected["outputs"]).max()
print("tf.compat.v1.saved_model.load: greatest difference", difference)
raise SystemExit(0 if "add_slot" in said and difference < 1e-6 else "the behaviour has changed")
PYTHON
