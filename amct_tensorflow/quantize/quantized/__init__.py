"""Builds the quantized graph of a plan, and reads quantized models."""
