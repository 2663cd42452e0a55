"""How scales and zero points are chosen: pure NumPy, from observed values and weights."""
