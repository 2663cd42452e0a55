"""Runs quantized models in TensorFlow Lite's kernels, where the processor has no exact products of bytes for oneDNN."""
