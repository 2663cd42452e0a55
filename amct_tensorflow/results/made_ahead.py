"""Makes beside the evaluation of the first quantized model what is written if that model is saved.

Most runs save it, and all but its metric is known by then. Another thread than the caller's does it.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from amct_tensorflow.io.stages import stage
from amct_tensorflow.model.inspection import Inspection
from amct_tensorflow.results.report.document import Layer
from amct_tensorflow.results.report.layer_rows import describe_layers
from amct_tensorflow.results.report.page import draw_layers
from amct_tensorflow.results.result_files import ResultFiles
from amct_tensorflow.search.trials import SearchResult


class MadeAhead:
    """The parts of the results that take most of their time: files of the model, and layers of the report."""

    def __init__(self, files: ResultFiles, inspection: Inspection) -> None:
        """Takes where the results go, and the inspection of the model; makes nothing yet."""
        self._files = files
        self._inspection = inspection
        self._expected: SearchResult | None = None
        self._contents: Mapping[Path, str | bytes] = {}
        self._layers: tuple[Layer, ...] = ()

    @stage("making files and figures ahead")
    def make(self, expected: SearchResult) -> None:
        """Makes them for an expected result, of which metrics are not known yet."""
        with suppress(Exception):  # which will be raised again, and reported, where they are needed
            contents = self._files.contents_of_model(expected)
            layers = describe_layers(self._inspection, expected)
            draw_layers(layers)
            self._expected, self._contents, self._layers = expected, contents, layers

    def contents_of_model(self, result: SearchResult) -> Mapping[Path, str | bytes]:
        """Returns the files of the model that is saved."""
        return self._contents if self._is_expected(result) else self._files.contents_of_model(result)

    def layers(self, result: SearchResult) -> tuple[Layer, ...]:
        """Returns the layers as a report describes them."""
        return self._layers if self._is_expected(result) else describe_layers(self._inspection, result)

    def _is_expected(self, result: SearchResult) -> bool:
        """Tells whether the first model is saved, and no search has followed it."""
        expected = self._expected
        if expected is None or expected.quantized is not result.quantized or len(result.trials) > 1:
            return False
        return expected.ranking == result.ranking
