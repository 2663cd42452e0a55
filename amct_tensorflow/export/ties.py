"""Which quantizers of a model's inputs read values that mostly lie in the middle between two levels.

Images of 8 bits scaled to [-1, 1] do, with a scale of 2 / 255 (``algorithms.ties``, which calibration goes by; a record
of other origin need not). Runtimes round such ties differently: ONNX Runtime and TensorFlow Lite divide by the scale
where AscendQuant multiplies, and OpenVINO goes by the parity of the zero point. So exported files are to round what
these quantizers read as AscendQuant does, before the quantizer of the runtime sees it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from amct_tensorflow.algorithms.ties import HAIR
from amct_tensorflow.comparison.running import Runner
from amct_tensorflow.export.integer_layer import IntegerLayer
from amct_tensorflow.graph.model_file import import_graph
from amct_tensorflow.graph.view import GraphView, attribute, full_tensor_name


def find_ties(view: GraphView, layers: Sequence[IntegerLayer], images: Mapping[str, np.ndarray]) -> frozenset[str]:
    """Returns the quantizers.

    Args:
        view: the quantized model.
        layers: its layers.
        images: per placeholder, some values.
    """
    behind = view.downstream([layer.dequantizer for layer in layers])
    first = {layer.quantizer: view.nodes[layer.quantizer] for layer in layers if layer.quantizer not in behind}
    tensors = {name: full_tensor_name(node.input[0]) for name, node in first.items()}
    with Runner(import_graph(view.graph_def, "the quantized model")) as runner:
        values = runner.run(list(dict.fromkeys(tensors.values())), {f"{name}:0": each for name, each in images.items()})
    return frozenset(
        name
        for name, node in first.items()
        if _are_ties(values[tensors[name]] * np.float32(attribute(node, "scale").f))
    )


def _are_ties(steps: np.ndarray) -> bool:
    """Tells whether more than half of some values, in steps, are ties but for what float32 loses."""
    return bool(2 * np.count_nonzero(np.abs(steps - np.floor(steps) - 0.5) < HAIR / 2) > steps.size)
