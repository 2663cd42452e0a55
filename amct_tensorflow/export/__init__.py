"""Exports: from the quantized model of a run to files that other runtimes execute with int8 kernels."""
