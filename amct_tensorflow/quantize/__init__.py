"""From a float model to a quantized one: configuration, calibration, record, graph."""
