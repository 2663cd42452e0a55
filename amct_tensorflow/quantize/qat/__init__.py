"""Models trained with fake quantization: factors are taken from their fake quantizers."""
