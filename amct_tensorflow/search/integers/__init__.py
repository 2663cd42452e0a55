"""Runs quantized models in integer kernels, to evaluate candidates faster than in simulation."""
