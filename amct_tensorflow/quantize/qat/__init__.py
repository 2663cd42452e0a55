"""Models whose training faked quantization: what their fake quantizers say becomes factors."""
