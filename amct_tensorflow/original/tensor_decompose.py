"""The import path of the original toolkit's functions that decompose convolutions."""

from amct_tensorflow.original.unsupported import auto_decomposition, decompose_graph

__all__ = ["auto_decomposition", "decompose_graph"]
