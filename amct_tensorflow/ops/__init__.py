"""Knowledge of op types: ``op_table`` has a row of traits each; each op type that can be quantized has a file."""

from amct_tensorflow.ops.op_table import OP_TYPES, has, op_types_with, trait
from amct_tensorflow.ops.quantizable import Quantizable
from amct_tensorflow.ops.unquantized import UNQUANTIZED

__all__ = ["OP_TYPES", "UNQUANTIZED", "Quantizable", "has", "op_types_with", "trait"]
