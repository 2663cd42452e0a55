"""Sensitivities: how strongly layers, and the outputs of the model, react to quantization."""
