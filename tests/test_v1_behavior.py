"""Programs of TensorFlow 1 that begin with ``disable_v2_behavior()``: lengths of shapes are no ints then."""

from conftest import ROOT
from programs import run_program

PROGRAM = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import tensorflow as tf
tf.compat.v1.disable_v2_behavior()
from pathlib import Path
from test_auto_calibration import Evaluator, calibrate, prepare
result = calibrate(prepare(Path()), Evaluator())
print("layers quantized:", sum(result.roll_back_config.values()))
"""


def test_a_model_is_quantized(tmp_path):
    code = PROGRAM.format(root=str(ROOT), tests=str(ROOT / "tests"))
    done = run_program("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "layers quantized: 5" in done.stdout
