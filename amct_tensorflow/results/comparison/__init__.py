"""Comparing a quantized model with the float model that it was made from, layer by layer and at the outputs."""
