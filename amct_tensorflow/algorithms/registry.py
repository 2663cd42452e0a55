"""The algorithms for activations: one file each, and one line here."""

from amct_tensorflow.algorithms.activation_algorithm import ActivationAlgorithm
from amct_tensorflow.algorithms.hfmg import Hfmg
from amct_tensorflow.algorithms.ifmr import Ifmr

DEFAULT_ALGORITHM = Ifmr
ACTIVATION_ALGORITHMS: dict[str, type[ActivationAlgorithm]] = {
    algorithm.name: algorithm for algorithm in (Ifmr, Hfmg)
}  # fmt: skip
