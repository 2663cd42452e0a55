"""What is known of op types: a row of traits each, in ``op_table``, and a file for what can be quantized."""

from amct_tensorflow.ops.op_table import OP_TYPES, has, op_types_with, trait
from amct_tensorflow.ops.quantizable import Quantizable
from amct_tensorflow.ops.unquantized import UNQUANTIZED

__all__ = ["OP_TYPES", "UNQUANTIZED", "Quantizable", "has", "op_types_with", "trait"]
