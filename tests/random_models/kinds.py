"""Every kind of step."""

from random_models.activations import ACTIVATIONS
from random_models.affine import AFFINE
from random_models.joins import JOINS
from random_models.layers import LAYERS
from random_models.loops import LOOPS
from random_models.moves import MOVES

KINDS = {**LAYERS, **AFFINE, **ACTIVATIONS, **MOVES, **JOINS, **LOOPS}
