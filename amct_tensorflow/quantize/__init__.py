"""Quantization: configuration, algorithms, calibration, record, and the quantized graph."""
