"""Observing activations, choosing factors, measuring what quantization does to each layer."""
