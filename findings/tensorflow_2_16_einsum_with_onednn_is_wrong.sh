#!/usr/bin/env bash
# TensorFlow 2.16.2 (tensorflow-cpu) on x86-64, with its oneDNN kernels and without.
#
# Behaviour: Einsum of "...c,cd->...d" with data of the shape [2, 3, 5, 4] and a matrix [4, 6]. With
# TF_ENABLE_ONEDNN_OPTS=1 about half of the values differ from NumPy's, by as much as values are large; with 0 all are
# right. No error is raised. With three axes ([2, 3, 4]) all are right either way.
# Seen: largest difference from NumPy 8.3 (four axes, oneDNN), below 1e-6 in the three other cases.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.16.2 numpy==1.26.4
cat > "$folder/einsum.py" <<'PYTHON'
import numpy as np
import tensorflow as tf

generator = np.random.default_rng(3)
found = []
for shape in ((2, 3, 5, 4), (2, 3, 4)):
    data = generator.normal(size=shape).astype(np.float32)
    matrix = generator.normal(size=(4, 6)).astype(np.float32)
    with tf.Graph().as_default():
        inputs = tf.compat.v1.placeholder(tf.float32, [None, *shape[1:]])
        result = tf.raw_ops.Einsum(inputs=[inputs, tf.constant(matrix)], equation="...c,cd->...d")
        with tf.compat.v1.Session() as session:
            values = session.run(result, {inputs: data})
    found.append(float(np.abs(values - data @ matrix).max()))
print(*found)
PYTHON
for switch in 1 0; do
  TF_ENABLE_ONEDNN_OPTS=$switch TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/einsum.py" 2>/dev/null > "$folder/$switch"
  echo "oneDNN $switch: largest differences of four and of three axes: $(cat "$folder/$switch")"
done
python3 - "$folder" <<'PYTHON'
import sys
from pathlib import Path

with_onednn, without = ([*map(float, Path(sys.argv[1], name).read_text().split())] for name in "10")
if not (with_onednn[0] > 0.1 and max(with_onednn[1], *without) < 1e-5):
    sys.exit("The behaviour has changed.")
PYTHON
