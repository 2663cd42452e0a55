"""Calibration: observes activations, chooses factors, and measures the error of each layer."""
