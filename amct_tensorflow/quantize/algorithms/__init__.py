"""The algorithms for activations, one file each and one line here; and those for weights."""

from amct_tensorflow.quantize.algorithms.activation_algorithm import ActivationAlgorithm
from amct_tensorflow.quantize.algorithms.hfmg import Hfmg
from amct_tensorflow.quantize.algorithms.ifmr import Ifmr

DEFAULT_ALGORITHM = Ifmr
ACTIVATION_ALGORITHMS: dict[str, type[ActivationAlgorithm]] = {
    algorithm.name: algorithm for algorithm in (Ifmr, Hfmg)
}  # fmt: skip
