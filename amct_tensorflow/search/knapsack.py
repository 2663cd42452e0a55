"""Chooses what to raise to which rung, so that little is paid for what is gained: a knapsack with a choice per layer.

Each layer has a part in a sum that must not exceed a limit, and the part becomes smaller the higher its rung is. Steps
are taken by what they gain for their cost; each layer offers the steps along the lower convex hull of its rungs, whose
merits fall (Sinha and Zoltners, *The Multiple-Choice Knapsack Problem*, Operations Research 1979). What is not needed
is taken back, and single layers are exchanged for cheaper ones.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from amct_tensorflow.search.damage import Raised


class Knapsack:
    """Finds cheap sets of layers to raise."""

    def __init__(self, parts: Mapping[str, Sequence[float]], costs: Mapping[str, Sequence[float]]) -> None:
        """Takes per layer, for each of its rungs from the lowest on, its part in the sum and what it costs."""
        self._parts = parts
        self._costs = costs
        steps = [(merit, name, rung) for name in sorted(parts) for merit, rung in self._steps(name)]
        self._steps_by_merit = sorted(steps, key=lambda step: (-step[0], step[1], step[2]))

    def cost(self, raised: Raised) -> float:
        """Returns the cost of raising layers."""
        return math.fsum(self._costs[name][rung] for name, rung in raised)

    def cheapest(self, limit: float) -> Raised:
        """Returns a cheap set with which the sum is within the limit; at worst every layer on its last rung."""
        rungs = dict.fromkeys(sorted(self._parts), 0)
        left = math.fsum(parts[0] for parts in self._parts.values()) - limit
        for _, name, rung in self._steps_by_merit:
            if left <= 0:
                break
            left -= self._parts[name][rungs[name]] - self._parts[name][rung]
            rungs[name] = rung
        left = self._take_back(rungs, left)
        left = self._exchange(rungs, left)
        self._take_back(rungs, left)
        return frozenset((name, rung) for name, rung in rungs.items() if rung)

    def _steps(self, name: str) -> Iterator[tuple[float, int]]:
        """Yields the steps of a layer that pay: merit and rung, from the lowest rung on."""
        parts, costs = self._parts[name], self._costs[name]
        at = 0
        while at < len(parts) - 1:
            merit, rung = max(
                ((parts[at] - parts[to]) / max(costs[to] - costs[at], 1e-12), -to) for to in range(at + 1, len(parts))
            )
            yield merit, -rung
            at = -rung

    def _take_back(self, rungs: dict[str, int], left: float) -> float:
        """Lowers layers as far as the limit allows, the most expensive first; returns what is left of the sum."""
        for name in sorted(rungs, key=lambda name: (-self._costs[name][rungs[name]], name)):
            for rung in range(rungs[name]):
                more = self._parts[name][rung] - self._parts[name][rungs[name]]
                if left + more <= 0:
                    rungs[name], left = rung, left + more
                    break
        return left

    def _exchange(self, rungs: dict[str, int], left: float) -> float:
        """Raises a cheaper layer in the place of one that is raised, where that is enough; returns what is left."""
        for name in sorted(rungs, key=lambda name: (-self._costs[name][rungs[name]], name)):
            if not rungs[name]:
                continue
            more = self._parts[name][0] - self._parts[name][rungs[name]]
            for other, rung in self._cheaper(rungs, self._costs[name][rungs[name]]):
                change = more - self._parts[other][0] + self._parts[other][rung]
                if left + change <= 0:
                    rungs[name], rungs[other], left = 0, rung, left + change
                    break
        return left

    def _cheaper(self, rungs: Mapping[str, int], cost: float) -> list[tuple[str, int]]:
        """Returns layers on the lowest rung with the rungs that cost less, the cheapest first."""
        found = [
            (self._costs[name][rung], name, rung)
            for name, at in rungs.items()
            if not at
            for rung in range(1, len(self._costs[name]))
            if self._costs[name][rung] < cost
        ]
        return [(name, rung) for _, name, rung in sorted(found)]
