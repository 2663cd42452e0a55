"""From a plan to the bytes of a quantized model."""
