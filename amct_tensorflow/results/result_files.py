"""Writes the files of a run, which appear together."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amct_tensorflow.io.contents import finite_or_none
from amct_tensorflow.io.files import check_writable
from amct_tensorflow.io.publishing import exclusive, finish, publish
from amct_tensorflow.log import LOG_DIR, log_for
from amct_tensorflow.quantize.config.json_file import dump_config
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.quantize.quantized.model_files import ModelPaths
from amct_tensorflow.quantize.quantized.node_map import dump_node_map
from amct_tensorflow.quantize.record.corrections import correction_paths, dump_corrections
from amct_tensorflow.quantize.record.record_file import dump_record
from amct_tensorflow.results.report.page import REPORT_PAGE
from amct_tensorflow.results.report.report_json import REPORT_NUMBERS
from amct_tensorflow.search.configuration import decisions, layers_in_16_bits, rung_names
from amct_tensorflow.search.trials import SearchResult, Trial

HISTORY_FILE = "accuracy_based_auto_calibration_record.json"
RANKING_FILE = "accuracy_based_auto_calibration_ranking_information.json"
FINAL_CONFIG_FILE = "accuracy_based_auto_calibration_final_config.json"


def dump_history(trials: Sequence[Trial], *, with_rungs: bool = False) -> str:
    """Returns the search history: one JSON array of ``{"roll_back_config", "metric_eval"}``.

    Args:
        trials: what was judged.
        with_rungs: whether to add ``"rungs"``, the name of each layer's rung.
    """
    records: list[dict[str, object]] = [
        {
            "roll_back_config": decisions(trial.configuration),
            "metric_eval": [trial.judged.satisfied, finite_or_none(trial.judged.loss)],
        }
        for trial in trials
    ]
    if with_rungs:
        for record, trial in zip(records, trials, strict=True):
            record["rungs"] = rung_names(trial.configuration)
    return _dump(records)


def dump_ranking(similarities: Mapping[str, float], rungs: Mapping[str, str] | None = None) -> str:
    """Returns ``[layer, similarity]`` pairs, most sensitive first; with ``rungs``, that of the layer comes third."""
    ranked = sorted(similarities, key=lambda name: similarities[name])
    added = {} if rungs is None else {name: [rungs[name]] for name in ranked}
    return _dump([[name, finite_or_none(similarities[name]), *added.get(name, [])] for name in ranked])


def _dump(value: object) -> str:
    return json.dumps(value, indent=4, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class ResultFiles:
    """The paths of a run's results, which together describe one model.

    Attributes:
        model: the quantized model, its node map, and the frozen model to which the map refers.
        record: the record.
        config: the configuration that was asked for; None if it is in a file of the user's.
        frozen: the original model, if it was frozen for this run; None if it is in a file of the user's.
    """

    model: ModelPaths
    record: Path
    config: Path | None
    frozen: bytes | None

    @property
    def folder(self) -> Path:
        """The folder of the model, and of all files without a path of their own."""
        return self.model.model.parent

    @property
    def folders(self) -> list[Path]:
        """All folders with results."""
        return list(dict.fromkeys(path.parent for path in self.paths))

    @property
    def models(self) -> list[Path]:
        """The files that hold models."""
        return [self.model.model] if self.frozen is None else [self.model.model, self.model.frozen]

    @property
    def paths(self) -> list[Path]:
        """All files."""
        found = [self.folder / FINAL_CONFIG_FILE, self.folder / RANKING_FILE, LOG_DIR / HISTORY_FILE]
        named = [*self.models, self.model.node_map, self.record, *correction_paths(self.record)]
        named += [self.report_page, self.report_numbers]
        return [*named, *found] if self.config is None else [*named, *found, self.config]

    @property
    def report_page(self) -> Path:
        """The page of the report."""
        return self.folder / REPORT_PAGE

    @property
    def report_numbers(self) -> Path:
        """The numbers of the report, as JSON."""
        return self.folder / REPORT_NUMBERS

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keeps other runs out of the folders, and completes what a killed run began to publish there.

        Raises:
            OutputError: nothing can be written there, or another run does.
        """
        for folder in self.folders:
            check_writable(folder)
        with exclusive(self.folders):
            finish(self.folder, self.paths)
            yield

    def publish(
        self,
        result: SearchResult,
        config: QuantConfig,
        report: Mapping[Path, str],
        of_model: Mapping[Path, str | bytes],
    ) -> None:
        """Publishes all files together; see ``contents``.

        Args:
            result: how the search ended.
            config: the configuration that was asked for.
            report: the content of the files of the report; without it, that of an earlier run is removed.
            of_model: what ``contents_of_model`` returns.

        Raises:
            OutputError: one cannot be written; all are then as they were.
        """
        if existing := next(filter(Path.exists, self.models), None):
            log_for().warning("%s and the files beside it already exist; they will be overwritten.", existing)
        publish(self.folder, {**of_model, **self.contents(result, config), **report})
        for outdated in {self.report_page, self.report_numbers} - report.keys():
            outdated.unlink(missing_ok=True)

    def contents_of_model(self, result: SearchResult) -> dict[Path, str | bytes]:
        """Returns the content of each file that follows from the model which is saved, whatever its metric."""
        plan = result.plan
        return {
            self.model.model: result.quantized.model,
            self.model.node_map: dump_node_map(result.quantized),
            self.record: dump_record(plan.factors, plan.fused.balance if plan.factors else {}, plan.tables),
            **dump_corrections(self.record, plan.factors, plan.corrections, plan.fused.layers),
        }

    def contents(self, result: SearchResult, config: QuantConfig) -> dict[Path, str | bytes]:
        """Returns the content of each other file but those of the report.

        Args:
            result: how the search ended.
            config: the configuration that was asked for.
        """
        saved, with_rungs = result.saved.configuration, result.has_wide_rung
        contents: dict[Path, str | bytes] = {
            self.folder / FINAL_CONFIG_FILE: dump_config(
                config.with_enabled(decisions(saved)).with_wide(layers_in_16_bits(saved))
            ),
            self.folder / RANKING_FILE: dump_ranking(result.ranking, rung_names(saved) if with_rungs else None),
            LOG_DIR / HISTORY_FILE: dump_history(result.trials, with_rungs=with_rungs),
        }
        if self.frozen is not None:
            contents[self.model.frozen] = self.frozen
        if self.config is not None:
            contents[self.config] = dump_config(config)
        return contents
