"""Which steps there can be: those that float32 can multiply by, and divide by.

TensorFlow, like every runtime with kernels for float32, takes what is below the smallest normal number for 0.
"""

SMALLEST_SCALE = 2.0**-126
LARGEST_SCALE = 2.0**126

# The step of an activation of which nothing but 0 was seen, unless its layer's bias needs a smaller one. Any serves its
# values; but the bias is rounded to this times the step of the weights, so it must not be coarse.
SCALE_OF_NOTHING = 2.0**-8
