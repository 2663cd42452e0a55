"""A model of the damage that quantization does: from the damage of each layer alone to that of any set of layers.

Errors of different layers hardly depend on each other, so that their powers add up, and a divergence is a power. Where
outputs saturate they add up to less, where errors reinforce each other to more. One exponent says which:

    damage(S) = scale * (sum of damage(i)^q over the layers i of S)^(1 / q)

It is chosen such that the sum over all layers meets what was measured of all of them. The scale meets what was measured
last: near a set that is known, the model errs little.

A layer adds less or more to what others do than it does alone. Where it was measured what all but this layer do, its
part is the mean of both ends, and the parts of the other layers share what is left.
"""

import math
from collections.abc import Mapping, Sequence

# Layers above the lowest rung of the ladder, each with its rung; 0 is the lowest, and the last is float.
Raised = frozenset[tuple[str, int]]

_LEAST_POWER, _MOST_POWER = 0.5, 4.0
_BISECTIONS = 60
# What of its part alone a layer keeps at least, and what of the whole the layers keep that were measured only alone.
_LEAST_SHARE = 0.25
_LEAST_LEFT = 0.1


class DamageModel:
    """Predicts the damage of sets of layers."""

    def __init__(
        self, alone: Mapping[str, Sequence[float]], whole: float, without: Mapping[str, float] | None = None
    ) -> None:
        """Fits the model.

        Args:
            alone: per layer, the damage that it does alone on each rung but the last, which is float.
            whole: the damage of all layers on the lowest rung together, above 0.
            without: for some layers, the damage of all but this one, which is in float.
        """
        lowest = [damages[0] for damages in alone.values()]
        self.power = _power_that_meets(lowest, whole)
        self.parts = {
            name: [*(math.pow(max(damage, 0.0), self.power) for damage in damages), 0.0]
            for name, damages in alone.items()
        }
        self._take_means(whole, without or {})
        self._scale = 1.0
        self.meet(frozenset(), whole)

    def _take_means(self, whole: float, without: Mapping[str, float]) -> None:
        """Replaces the parts of layers that were measured from both ends, and scales the others to what is left."""
        together = self._part(whole)
        left = together
        for name, damage in without.items():
            alone = self.parts[name][0]
            mean = max((alone + together - self._part(damage)) / 2, _LEAST_SHARE * alone)
            left -= mean
            self._multiply(name, mean / alone if alone else 1.0)
        others = self.parts.keys() - without.keys()
        sum_of_others = math.fsum(self.parts[name][0] for name in others)
        if without and sum_of_others:
            for name in others:
                self._multiply(name, max(left, _LEAST_LEFT * together) / sum_of_others)

    def _multiply(self, name: str, factor: float) -> None:
        self.parts[name] = [factor * part for part in self.parts[name]]

    def damage(self, raised: Raised) -> float:
        """Returns the damage that is predicted."""
        above = dict(raised)
        together = math.fsum(parts[above.get(name, 0)] for name, parts in self.parts.items())
        return self._scale * math.pow(together, 1 / self.power)

    def meet(self, raised: Raised, measured: float) -> None:
        """Makes the model agree with what was measured of a set."""
        predicted = self.damage(raised)
        if 0 < predicted < math.inf and 0 < measured < math.inf:
            scale = self._scale * measured / predicted
            if 0 < scale < math.inf:  # a prediction next to 0 says nothing
                self._scale = scale

    def limit(self, damage: float) -> float:
        """Returns the sum of parts that leads to a damage."""
        return math.pow(max(damage, 0.0) / self._scale, self.power)

    def _part(self, damage: float) -> float:
        return math.pow(max(damage, 0.0), self.power)


def _power_that_meets(damages: Sequence[float], whole: float) -> float:
    """Returns ``q`` with ``(sum of damages^q)^(1 / q) = whole``, as near as its bounds allow."""
    largest = max(damages, default=0.0)
    if largest <= 0:
        return 1.0
    low, high = _LEAST_POWER, _MOST_POWER
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        together = largest * math.fsum((max(damage, 0.0) / largest) ** middle for damage in damages) ** (1 / middle)
        low, high = (middle, high) if together > whole else (low, middle)
    return (low + high) / 2
