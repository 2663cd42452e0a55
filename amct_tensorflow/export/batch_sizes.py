"""Finds out how many images a model takes at a time: any number, or one that its graph fixes.

A placeholder may fix it, or the shape in a Reshape or a transposed convolution. If the first axis counts something else
than images, such as time steps, fed values cannot be divided.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from amct_tensorflow.errors import DatasetError
from amct_tensorflow.export.float_reference import make_float_reference
from amct_tensorflow.graph.graph_runner import GraphRunner
from amct_tensorflow.graph.view import GraphView, attribute
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.model.outline import one_image_shapes
from amct_tensorflow.quantize.quantized.quantized_layer import read_layers
from amct_tensorflow.search.sensitivity.divergence import Divergence

# Kernels sum in another order for another number of images, which moves some integers by one.
_ALIKE = 0.01

Values = Mapping[str, np.ndarray]


def fixed_batch(view: GraphView) -> int | None:
    """Returns how many images a quantized model takes at a time, as its graph says; None if it does not."""
    lengths = {_length(view, node.name) for node in view.nodes.values() if node.op == "Placeholder"}
    if None not in lengths:
        return lengths.pop() if len(lengths) == 1 else None
    layers = read_layers(view)
    ends = [name for name in view.nodes if not view.consumers(name)]
    reference = GraphView(make_float_reference(view, layers, [layer.name for layer in layers], ends))
    if one_image_shapes(reference, reference.nodes) is not None:
        return None
    return next(
        (count for count in _candidates(reference) if one_image_shapes(reference, reference.nodes, count) is not None),
        None,
    )


def _length(view: GraphView, placeholder: str) -> int | None:
    """Returns the length of the first axis of a placeholder; None if it is open, or there is no axis."""
    node = view.nodes[placeholder]
    shape = tf.TensorShape(attribute(node, "shape").shape if "shape" in node.attr else None)
    length: int | None = shape.as_list()[0] if shape.rank else None
    return length


def _candidates(view: GraphView) -> list[int]:
    """Returns the first numbers of shapes that a graph holds."""
    constants = (view.constant(node.name) for node in view.nodes.values() if node.op == "Const")
    shapes = (each for each in constants if each is not None and each.ndim == 1 and each.dtype.kind == "i")
    return sorted({int(shape[0]) for shape in shapes if shape.size > 1 and shape[0] > 1})


def least_shapes(view: GraphView, outputs: Sequence[str], fed: Values) -> dict[str, tuple[int, ...]]:
    """Returns per placeholder the smallest shape that a quantized model takes at a time.

    That is one image, if single images give the same outputs as all at once; else the fed shape.

    Args:
        view: the quantized model.
        outputs: its output operators.
        fed: the values of its placeholders in a run.
    """
    open_ = [name for name, values in fed.items() if values.ndim and _length(view, name) is None]
    whole = {name: values.shape for name, values in fed.items()}
    if len({len(fed[name]) for name in open_}) != 1 or not _is_of_single_images(view, outputs, fed, open_):
        return whole
    return {name: (1, *shape[1:]) if name in open_ else shape for name, shape in whole.items()}


def _is_of_single_images(view: GraphView, outputs: Sequence[str], fed: Values, open_: Sequence[str]) -> bool:
    """Tells whether the first and the last image give the same outputs alone as among all."""
    count = len(fed[open_[0]])
    tensors = list(dict.fromkeys(f"{name}:0" for name in outputs))
    divergence = Divergence(len(tensors))
    with GraphRunner(import_graph(view.graph_def, "the quantized model")) as runner:
        try:
            among = runner.values(tensors, {f"{name}:0": values for name, values in fed.items()})
            for image in {0, count - 1}:
                part = {name: values[image : image + 1] if name in open_ else values for name, values in fed.items()}
                alone = runner.values(tensors, {f"{name}:0": values for name, values in part.items()})
                if any(not _is_per_image(among[name], alone[name], count) for name in tensors):
                    return False
                divergence.add(
                    [_part(among[name], image, count) for name in tensors], [alone[name] for name in tensors]
                )
        except DatasetError:  # the graph takes no other number
            return False
    return divergence.value <= _ALIKE


def _is_per_image(among: np.ndarray, alone: np.ndarray, count: int) -> bool:
    return bool(alone.ndim and among.shape == (count * len(alone), *alone.shape[1:]))


def _part(values: np.ndarray, image: int, count: int) -> np.ndarray:
    length = len(values) // count
    return values[image * length : (image + 1) * length]


def in_batches_of(count: int, batches: Iterable[Values], per_image: Sequence[str]) -> Iterator[tuple[Values, int]]:
    """Yields the same images in batches of another size; the last one is padded with images of its own.

    Args:
        count: how many images a batch has.
        batches: the images, in batches of any size.
        per_image: the inputs whose first axis counts images; the others are taken as they come.

    Yields:
        A batch, and how many of its images are not padding.
    """
    waiting: dict[str, np.ndarray] = {}
    for batch in batches:
        waiting = {
            name: np.concatenate([waiting[name], values]) if name in waiting and name in per_image else values
            for name, values in batch.items()
        }
        while (images := len(waiting[per_image[0]])) >= count:
            yield {name: values[:count] if name in per_image else values for name, values in waiting.items()}, count
            waiting = {name: values[count:] if name in per_image else values for name, values in waiting.items()}
        if not images:
            waiting = {}
    if waiting:
        images = len(waiting[per_image[0]])
        places = np.arange(count) % images
        yield {name: values[places] if name in per_image else values for name, values in waiting.items()}, images
