"""The plans of a model whose layers stand on any rungs of a device's ladder.

What reads 16 bits is calibrated when a search begins, not before: most models satisfy in 8.
"""

from collections.abc import Collection, Mapping
from functools import cached_property

import tensorflow as tf

from amct_tensorflow.devices.rungs import A16W8, Ladder
from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.log import log_for
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS
from amct_tensorflow.quantize.calibration.calibrator import CalibrationResult
from amct_tensorflow.quantize.calibration.wide_rung import wide_plan
from amct_tensorflow.quantize.config.schema import QuantConfig
from amct_tensorflow.quantize.quantized.quantization_plan import QuantizationPlan
from amct_tensorflow.search.configuration import Configuration, decisions, layers_in_16_bits


class RungPlans:
    """Makes the plan of any configuration.

    Attributes:
        in_float: the layers that stay in float anyway, on that rung.
    """

    def __init__(
        self,
        graph: tf.Graph,
        plan: QuantizationPlan,
        calibration: CalibrationResult,
        config: QuantConfig,
        rungs: Ladder,
        in_float: Collection[LayerName] = (),
    ) -> None:
        """Takes the plan of all layers as they were calibrated, and the rungs of the device.

        Args:
            graph: the float model as TensorFlow sees it.
            plan: the plan.
            calibration: the calibration that it is of.
            config: its configuration; a layer that it asks to read 16 bits is not put on a lower rung.
            rungs: the rungs of the device.
            in_float: the layers that stay in float anyway.
        """
        self._graph = graph
        self._plan = plan
        self._calibration = calibration
        self._config = config
        self._rungs = rungs
        self.in_float: Configuration = dict.fromkeys(in_float, rungs[-1])

    @property
    def lowest(self) -> Configuration:
        """The configuration with every layer on its lowest rung, but those that stay in float."""
        return {**{name: self._ladder(name)[0] for name in self._config.enabled_layers()}, **self.in_float}

    @property
    def has_tables(self) -> bool:
        """Whether tables are stored in int8, whatever the rungs of layers are."""
        return bool(self._plan.tables)

    @cached_property
    def ladders(self) -> Mapping[str, Ladder]:
        """Per layer that does not stay in float, the rungs on which it may stand, the lowest first."""
        wide = () if self.wide is None else self.wide.factors
        found: dict[str, Ladder] = {}
        for name in self._config.enabled_layers():
            if name not in self.in_float:
                has_form = name in wide or not self._is_narrow(name)
                found[name] = tuple(rung for rung in self._ladder(name) if has_form or not rung.is_wide)
        return found

    @cached_property
    def wide(self) -> QuantizationPlan | None:
        """The plan of the layers that may read 16 bits; None if the device has no such rung, or nothing is known."""
        if not any(rung.is_wide for rung in self._rungs):
            return None
        if not self._calibration.batches:
            log_for("search").warning("No calibration batch was kept; layers are raised from 8 bits to float at once.")
            return None
        config = self._config.with_enabled(dict.fromkeys(self.in_float, False))
        return wide_plan(self._graph, self._plan, self._calibration, config)

    def of(self, configuration: Configuration) -> QuantizationPlan:
        """Returns the plan of a configuration."""
        raised = [name for name in layers_in_16_bits(configuration) if self._is_narrow(name)]
        plan = self._plan
        if raised:
            assert self.wide is not None
            plan = plan.with_layers_of(self.wide, raised)
        return plan.restrict(decisions({**configuration, **self.in_float}))

    def _ladder(self, name: str) -> Ladder:
        """Returns the rungs of a layer as far as its configuration tells."""
        if self._is_narrow(name):
            return self._rungs
        above = tuple(rung for rung in self._rungs if rung.num_bits != INT8_BITS)
        if above[0].is_wide:
            return above
        return (A16W8.at(self._rungs[0].cost / 2 + above[0].cost / 2), *above)

    def _is_narrow(self, name: str) -> bool:
        """Tells whether a layer reads 8 bits unless it is raised."""
        return self._config.layers[LayerName(name)].activation.num_bits == INT8_BITS
