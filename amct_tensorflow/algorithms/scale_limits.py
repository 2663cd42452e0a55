"""Which steps there can be: those that float32 can multiply by, and divide by.

TensorFlow, like every runtime with kernels for float32, takes what is below the smallest normal number for 0.
"""

SMALLEST_SCALE = 2.0**-126
LARGEST_SCALE = 2.0**126

# The step of an activation of which nothing but 0 was seen. Any serves its values; but the bias of its layer is rounded
# to this times the step of the weights, so it must not be coarse.
SCALE_OF_NOTHING = 2.0**-8
