#!/bin/bash
# Keras 3.15.1: a Sequential model that Keras 2.3 saved as HDF5 gets an axis too many.
#
#   Sequential([Dense(3)]), the first layer with batch_input_shape [None, 4], as Keras up to 2.3 describes it
#
# Until Keras 2.4 the first layer of a Sequential model told the shape of a batch, and there was no layer for the input.
# Keras 3 takes that shape for the shape of one example, so that the model wants [batch, anything, 4]. The file loads
# without a word. Where the first layers work on the last axis alone, the weights fit as well.
#
# Output seen (x86-64):
#   input (None, None, 4), was saved as (None, 4)
# Exits with 1 if the input has the shape with which it was saved.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 keras==3.15.1 h5py==3.14.0
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - "$folder/old.h5" 2>/dev/null <<'PYTHON'
import json
import sys

import h5py
import keras
import numpy as np

layer = {"name": "dense", "units": 3, "activation": "linear", "use_bias": False, "batch_input_shape": [None, 4]}
config = {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": layer}]}
config["config"] = {"name": "net", "layers": config["config"]}
with h5py.File(sys.argv[1], "w") as file:
    file.attrs.update(model_config=json.dumps(config), keras_version="2.3.1", backend="tensorflow")
    groups = file.create_group("model_weights")
    groups.attrs.update(layer_names=[b"dense"], keras_version="2.3.1", backend="tensorflow")
    groups.create_group("dense").attrs["weight_names"] = [b"dense/kernel:0"]
    groups["dense"].create_dataset("dense/kernel:0", data=np.ones((4, 3), np.float32))
shape = keras.models.load_model(sys.argv[1], compile=False).input_shape
print(f"input {shape}, was saved as (None, 4)")
sys.exit(0 if shape == (None, None, 4) else 1)
PYTHON
