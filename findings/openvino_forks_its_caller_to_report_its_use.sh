#!/bin/bash
# OpenVINO 2026.4.1 with openvino-telemetry 2025.2.0: converting a model forks the calling process, to report its use.
#
# openvino.convert_model, the Python function, sends events on each conversion to its makers' statistics, without asking
# before. Each event is sent from a fork of the whole calling process, made in a thread beside those of the caller (which
# may hold locks), and waited for up to 3 s. No argument turns it off. These do: CI=true in the environment, a file in the
# home folder (opt_in_out --opt_out), and a module openvino_telemetry that cannot be imported.
#
# Output seen (x86-64, Linux):
#   forks per conversion: 9, without the module 0
# Exits with 1 if a conversion does not fork.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  openvino==2026.4.1 openvino-telemetry==2025.2.0 onnx==1.23.2 numpy==2.4.6
cat > "$folder/count.py" <<'PYTHON'
import os
import sys

forks = []
sys.addaudithook(lambda event, _: forks.append(event) if event == "os.fork" else None)
if sys.argv[2] == "without":
    sys.modules["openvino_telemetry"] = None

import openvino
from onnx import TensorProto, helper, save

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), sys.argv[1])
openvino.convert_model(sys.argv[1])
if sys.argv[2] == "with":
    from openvino_telemetry import Telemetry

    Telemetry().force_shutdown(60)  # waits for what is being sent
print(len(forks))
PYTHON
unset CI TF_BUILD JENKINS_URL
# A home of its own, as on a new machine; and no way out, so that nothing is sent.
export HOME="$folder" https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9
with=$("$folder/venv/bin/python" "$folder/count.py" "$folder/relu.onnx" with 2>/dev/null | tail -1)
without=$("$folder/venv/bin/python" "$folder/count.py" "$folder/relu.onnx" without 2>/dev/null | tail -1)
echo "forks per conversion: $with, without the module $without"
[ "$with" -gt 0 ] && [ "$without" -eq 0 ]
