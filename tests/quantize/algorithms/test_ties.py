"""Images that are all ties keep their levels, whatever rounds them."""

import numpy as np
import pytest

from amct_tensorflow.quantize.algorithms.activation_factors import ActivationFactors, break_ties
from amct_tensorflow.quantize.algorithms.distribution import Observation
from amct_tensorflow.quantize.algorithms.hfmg import Hfmg
from amct_tensorflow.quantize.algorithms.ifmr import Ifmr

LEVELS = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)


def observed(values):
    observation = Observation()
    observation.add(values)
    return observation.distribution()


@pytest.mark.parametrize("repetitions", [1, 1000])  # exact values, and a histogram
def test_a_scale_a_hair_larger_has_no_ties(repetitions):
    distribution = observed(np.tile(LEVELS, repetitions))
    factors = Hfmg().search(distribution, asymmetric=True)
    assert factors.scale == pytest.approx(2 / 255)
    assert len(set(np.rint(LEVELS / np.float32(factors.scale)))) < 220  # 129, if float32 lost nothing
    parted = break_ties(distribution, factors)
    assert parted.scale == pytest.approx(2 / 255 * (1 + 2**-10)) and parted.offset == factors.offset
    steps = np.abs(LEVELS.astype(np.float64) / parted.scale) % 1
    assert np.abs(steps - 0.5).min() > 2**-12
    # Towards 0: one level of 256 is left out, that between the two around 0.
    assert len(set(np.rint(LEVELS / np.float32(parted.scale)))) == 255


@pytest.mark.parametrize("asymmetric", [True, False])
def test_the_least_error_is_never_among_ties(asymmetric):
    distribution = observed(np.tile(LEVELS, 300))
    factors = Ifmr().search(distribution, asymmetric)
    assert break_ties(distribution, factors) == factors


def test_other_values_keep_their_scale():
    distribution = observed(np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32))
    factors = ActivationFactors(2 / 255, 0)
    assert break_ties(distribution, factors) is factors
