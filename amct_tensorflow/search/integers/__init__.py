"""Running quantized models in integers, to evaluate candidates faster than the simulation does."""
