"""Compares a quantized model with its float model, layer by layer and at the outputs."""
