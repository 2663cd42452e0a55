"""The steps of weights: the larger side gets all of its own, unless the other would clip."""

import numpy as np
import pytest

from amct_tensorflow.quantize.algorithms.scales import SMALLEST_SCALE, arq_scales, symmetric_scale


@pytest.mark.parametrize(
    "above, below, scale",
    [
        (127, 128, 1),  # both sides end at their last integer
        (127.4, 128, 1),  # rounds to 127
        (127.6, 128, 128 / 127),  # would become 128, which there is not
        (127, 100, 1),
        (0, 64, 0.5),
        (64, 0, 64 / 127),
        (0, 0, 1),
        (1e-40, 0, SMALLEST_SCALE),
    ],
)
def test_symmetric_scale(above, below, scale):
    assert symmetric_scale(np.array([above]), np.array([below])) == pytest.approx(scale, rel=1e-12)


def test_scales_go_with_output_channels():
    weights = np.arange(-12, 12, dtype=np.float32).reshape(1, 1, 4, 6)
    found = arq_scales("layer", "Conv2D", weights, True)
    assert found == pytest.approx(np.array([12 / 128, 11 / 128, 10 / 128, 9 / 127, 10 / 127, 11 / 127]))
    assert arq_scales("layer", "Conv2D", weights, False) == pytest.approx([12 / 128])
