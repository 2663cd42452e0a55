"""What the search tried, and the files that tell of it (spec section 6.4, as valid JSON)."""

import json
import math
from collections.abc import Mapping, Sequence

from amct_tensorflow.search.trials import Trial

HISTORY_FILE = "accuracy_based_auto_calibration_record.json"
RANKING_FILE = "accuracy_based_auto_calibration_ranking_information.json"
FINAL_CONFIG_FILE = "accuracy_based_auto_calibration_final_config.json"


def dump_history(trials: Sequence[Trial]) -> str:
    """Returns the search history: one JSON array of ``{"roll_back_config", "metric_eval"}``."""
    records = [
        {"roll_back_config": trial.configuration, "metric_eval": [trial.judged.satisfied, _number(trial.judged.loss)]}
        for trial in trials
    ]
    return _dump(records)


def dump_ranking(similarities: Mapping[str, float]) -> str:
    """Returns ``[layer, similarity]`` pairs, most sensitive first."""
    ranked = sorted(similarities, key=lambda name: similarities[name])
    return _dump([[name, _number(similarities[name])] for name in ranked])


def _number(value: float) -> float | None:
    """JSON knows no infinity; it becomes null, as it does for other writers."""
    return value if math.isfinite(value) else None


def _dump(value: object) -> str:
    return json.dumps(value, indent=4, separators=(",", ":"), allow_nan=False)
