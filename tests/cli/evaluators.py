"""Evaluator files for ``small_net``, as users of the command line write them."""

# As the original's command line wants it: no base class, names of tensors that go straight to the session.
ORIGINAL = """
import numpy as np
import tensorflow as tf

class MyEvaluator:
    def calibration(self, graph, infer_output):
        assert infer_output == ["probabilities:0"]
        images = np.random.default_rng(9).normal(size=(8, 12, 12, 3)).astype("float32")
        with tf.compat.v1.Session(graph=graph) as session:
            (values,) = session.run(infer_output, {"input:0": images})
        assert values.shape == (8, 5)

customize_evaluator = MyEvaluator()
"""

# As accuracy_based_auto_calibration wants it: the share of images on which the models agree, in percent.
DERIVED = """
import numpy as np
import tensorflow as tf
from amct_tensorflow.common.auto_calibration import AutoCalibrationEvaluatorBase

class MyEvaluator(AutoCalibrationEvaluatorBase):
    def __init__(self):
        self.expected = None

    def calibration(self, graph, outputs):
        self.run(graph, outputs)

    def evaluate(self, graph, outputs):
        classes = self.run(graph, outputs).argmax(1)
        self.expected = classes if self.expected is None else self.expected
        return 100.0 * float(np.mean(classes == self.expected))

    def run(self, graph, outputs):
        images = np.random.default_rng(9).normal(size=(64, 12, 12, 3)).astype("float32")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run(outputs[0] + ":0", {"input:0": images})

evaluator = MyEvaluator()
"""

JUDGING = DERIVED.replace(
    "    def run(",
    """    def metric_eval(self, original, new):
        return original - new <= 50, original - new

    def run(""",
)

# What a metric of a few lines may be: every quantized layer costs something, one of them more.
COSTLY = DERIVED.replace(
    "        return 100.0 * float(np.mean(classes == self.expected))",
    """        layers = [each.name for each in graph.get_operations() if each.type == "AscendDequant"]
        return 100.0 - len(layers) / 10 - 5 * any("dw/" in name for name in layers)""",
)

WORDY = DERIVED.replace("return 100.0 * float", 'return "much"  # ')

SLOW = DERIVED.replace(
    "    def evaluate(self, graph, outputs):",
    """    def evaluate(self, graph, outputs):
        open("begun", "w").close()
        import time
        time.sleep(60)""",
)
