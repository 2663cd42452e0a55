"""What is left to chance while a recipe is drawn."""

import numpy as np


class Chance:
    """Draws plain Python values, so that recipes can be written as JSON.

    Attributes:
        channels_first: whether images have their channels before height and width.
        rows: how many rows of the placeholder belong together.
        wild: whether values may be of any magnitude.
    """

    def __init__(self, seed):
        self._generator = np.random.default_rng(seed)
        self.channels_first = False
        self.rows = 1
        self.wild = False

    def maybe(self, probability):
        return bool(self._generator.random() < probability)

    def whole(self, lowest, highest):
        """Draws a whole number; both ends are possible."""
        return int(self._generator.integers(lowest, highest + 1))

    def pick(self, *choices):
        return choices[self.whole(0, len(choices) - 1)]

    def weighted(self, weights):
        """Draws a key of a table of weights."""
        values = np.array(list(weights.values()), float)
        return list(weights)[int(self._generator.choice(len(values), p=values / values.sum()))]

    def seed(self):
        return self.whole(0, 9999)

    def order(self, count):
        return self._generator.permutation(count).tolist()

    def gain(self):
        """Draws by what weights are multiplied: mostly 1."""
        if not self.wild or self.maybe(0.7):
            return 1.0
        return self.pick(1e-6, 1e-4, 0.01, 0.1, 10.0, 100.0, 1e4)
