"""Sorts the operators of an edited model in an order in which they can run, without unused ones."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from graphlib import TopologicalSorter
from typing import Any


def in_running_order(
    operators: Sequence[Any],
    inputs: Callable[[Any], Iterable[Any]],
    outputs: Callable[[Any], Iterable[Any]],
    wanted: Iterable[Any],
) -> list[Any]:
    """Returns operators so that each stands behind those whose outputs it reads.

    Edits leave floats behind that nothing reads. XNNPACK and ONNX Runtime skip them, but other kernels would not.

    Args:
        operators: the operators.
        inputs: returns the inputs of an operator.
        outputs: returns the outputs of an operator.
        wanted: the tensors to compute.
    """
    ordered, needed = _ordered(operators, inputs, outputs), set(wanted)
    kept = []
    for operator in reversed(ordered):
        if not needed.isdisjoint(outputs(operator)):
            needed.update(inputs(operator))
            kept.append(operator)
    return kept[::-1]


def _ordered(
    operators: Sequence[Any],
    inputs: Callable[[Any], Iterable[Any]],
    outputs: Callable[[Any], Iterable[Any]],
) -> list[Any]:
    readers = defaultdict(list)
    for index, operator in enumerate(operators):
        for tensor in set(inputs(operator)):
            readers[tensor].append(index)
    sorter = TopologicalSorter(dict.fromkeys(range(len(operators)), ()))
    for index, operator in enumerate(operators):
        for tensor in outputs(operator):
            for reader in readers[tensor]:
                sorter.add(reader, index)
    return [operators[index] for index in sorter.static_order()]
