"""What the compilers of devices make of a model: the devices by name, and the rules by which a model is checked."""
