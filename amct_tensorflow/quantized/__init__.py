"""The quantized model: from a fused float graph and its factors to the files that are saved."""
