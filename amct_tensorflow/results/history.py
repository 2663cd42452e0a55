"""What the search tried, and the files that tell of it (spec section 6.4, as valid JSON)."""

import json
from collections.abc import Mapping, Sequence

from amct_tensorflow.search.trials import Trial
from amct_tensorflow.storage.json_text import finite_or_none

HISTORY_FILE = "accuracy_based_auto_calibration_record.json"
RANKING_FILE = "accuracy_based_auto_calibration_ranking_information.json"
FINAL_CONFIG_FILE = "accuracy_based_auto_calibration_final_config.json"


def dump_history(trials: Sequence[Trial]) -> str:
    """Returns the search history: one JSON array of ``{"roll_back_config", "metric_eval"}``."""
    records = [
        {
            "roll_back_config": trial.configuration,
            "metric_eval": [trial.judged.satisfied, finite_or_none(trial.judged.loss)],
        }
        for trial in trials
    ]
    return _dump(records)


def dump_ranking(similarities: Mapping[str, float]) -> str:
    """Returns ``[layer, similarity]`` pairs, most sensitive first."""
    ranked = sorted(similarities, key=lambda name: similarities[name])
    return _dump([[name, finite_or_none(similarities[name])] for name in ranked])


def _dump(value: object) -> str:
    return json.dumps(value, indent=4, separators=(",", ":"), allow_nan=False)
