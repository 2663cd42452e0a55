"""What a search tried."""

from typing import NamedTuple

from amct_tensorflow.search.evaluator import MetricEval


class Trial(NamedTuple):
    """One configuration (True: quantized) and how it was judged."""

    configuration: dict[str, bool]
    judged: MetricEval
