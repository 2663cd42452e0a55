"""Finds the layers that cost next to nothing on the highest rung, and are worth it.

A layer with a share of the multiply-accumulates below ``_SMALL_SHARE`` is as fast in float as in 8 bits, as far as the
whole model can tell. If it does more damage than most layers do, no search is needed to know where it belongs.
"""

import math
from collections.abc import Mapping
from statistics import median

from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for

# A hundred such layers are a twentieth of the work.
_SMALL_SHARE = 0.0005
_NAMES = 5


def is_small(mac_share: float) -> bool:
    """Tells whether a layer with a share of the multiply-accumulates costs next to nothing, whatever its rung is."""
    return mac_share < _SMALL_SHARE


def costless_layers(damages: Mapping[str, float], mac_shares: Mapping[str, float]) -> list[str]:
    """Returns the layers that start on the highest rung, those that do the most damage first; says which.

    Args:
        damages: per layer, how much quantizing it alone does to the outputs; NaN where that is not known.
        mac_shares: per layer, its share of the multiply-accumulates of all of them; layers without are left out, as
            nothing is known of their cost.
    """
    known = {name: damage for name, damage in damages.items() if not math.isnan(damage)}
    if not known:
        return []
    usual = median(known.values())
    small = [name for name in known if is_small(mac_shares.get(name, 1.0)) and known[name] > usual]
    found = sorted(small, key=lambda name: (-known[name], name))
    if found:
        log_for("search").info(
            "%s in float from the start, as that costs %.2g %% of the multiply-accumulates, and each does more damage "
            "than half of the layers: %s%s",
            plural(len(found), "layer", "is", "are"),
            100 * math.fsum(mac_shares[name] for name in found), ", ".join(found[:_NAMES]),
            ", ..." if len(found) > _NAMES else "",
        )  # fmt: skip
    return found
