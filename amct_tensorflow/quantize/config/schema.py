"""The content of a configuration, with its defaults (spec section 2.1)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from amct_tensorflow.graph.names import LayerName, PreparedName
from amct_tensorflow.quantize.algorithms import DEFAULT_ALGORITHM
from amct_tensorflow.quantize.algorithms.activation_algorithm import ActivationAlgorithm
from amct_tensorflow.quantize.algorithms.activation_factors import INT8_BITS, INT16_BITS

FORCE_FP16_QUANT = "FORCE_FP16_QUANT"
COMPRESS_ONLY = "weight_compress_only"
GLOBAL_KEYS = (
    "version",
    "batch_num",
    "activation_offset",
    "joint_quant",
    "do_fusion",
    "fakequant_precision_mode",
    "skip_fusion_layers",
    "tensor_quantize",
    "bias_correction",
    "weight_rounding",
    "range_refinement",
    "input_balancing",
)

NEAREST, SECOND_MOMENTS = "nearest", "second_moments"
WEIGHT_ROUNDINGS = (NEAREST, SECOND_MOMENTS)


@dataclass(frozen=True)
class ActivationConfig:
    """How the input of a layer is quantized: by which algorithm, with a zero point (asymmetric) or without, to 8 bits.

    With 16 bits it has no zero point, and its range is what was observed, whatever the algorithm.
    """

    algorithm: ActivationAlgorithm = field(default_factory=DEFAULT_ALGORITHM)
    asymmetric: bool = True
    num_bits: int = INT8_BITS

    def with_bits(self, num_bits: int) -> "ActivationConfig":
        """Returns the same with so many bits, and without a zero point if these have none."""
        return replace(self, num_bits=num_bits, asymmetric=self.asymmetric and num_bits == INT8_BITS)


@dataclass(frozen=True)
class WeightConfig:
    """How the weights of a layer are quantized: with one scale per output channel, or with one for all."""

    channel_wise: bool


@dataclass(frozen=True)
class LayerConfig:
    """Whether and how a layer is quantized; ``dmq_strength`` is the migration strength that it asks for, if any."""

    quant_enable: bool
    activation: ActivationConfig
    weights: WeightConfig
    dmq_strength: float | None = None


@dataclass(frozen=True)
class TensorQuantize:
    """An input of an op, other than a layer, that is quantized too."""

    layer_name: PreparedName
    input_index: int
    activation: ActivationConfig

    @property
    def key(self) -> LayerName:
        """Its key in the record (spec section 4)."""
        return LayerName(f"{self.layer_name}:{self.input_index}")


@dataclass(frozen=True)
class QuantConfig:
    """A whole configuration; ``layers`` holds every quantizable layer, sorted by name.

    ``tables`` holds every table that can be stored in int8, by the first node that looks it up, and whether it is.

    ``bias_correction``, ``weight_rounding``, ``range_refinement`` and ``input_balancing`` are extensions of the
    original format.
    """

    layers: Mapping[LayerName, LayerConfig]
    batch_num: int = 1
    activation_offset: bool = True
    joint_quant: bool = False
    do_fusion: bool = True
    fakequant_precision_mode: str | None = None
    skip_fusion_layers: tuple[LayerName, ...] = ()
    tensor_quantize: tuple[TensorQuantize, ...] = ()
    bias_correction: bool = True
    weight_rounding: str = SECOND_MOMENTS
    range_refinement: bool = True
    input_balancing: bool = True
    version: int = 1
    tables: Mapping[LayerName, bool] = field(default_factory=dict)

    def enabled_layers(self) -> list[LayerName]:
        """Returns the names of the layers to quantize."""
        return [name for name, layer in self.layers.items() if layer.quant_enable]

    def wide_layers(self) -> list[LayerName]:
        """Returns the names of the layers to quantize whose activations have 16 bits."""
        return [name for name in self.enabled_layers() if self.layers[name].activation.num_bits != INT8_BITS]

    def compressed_tables(self) -> tuple[LayerName, ...]:
        """Returns the names of the tables to store in int8."""
        return tuple(name for name, compressed in self.tables.items() if compressed)

    def unfused_layers(self) -> list[LayerName]:
        """Returns the names of the layers to quantize behind which a BatchNorm is kept."""
        return [name for name in self.enabled_layers() if not self.do_fusion or name in self.skip_fusion_layers]

    def asks_for_balancing(self) -> bool:
        """Tells whether a layer to quantize asks for DMQ balancing."""
        return any(self.layers[name].dmq_strength is not None for name in self.enabled_layers())

    def with_wide(self, names: Collection[LayerName]) -> "QuantConfig":
        """Returns the configuration with activations of 16 bits for some layers."""
        layers = {
            name: replace(layer, activation=layer.activation.with_bits(INT16_BITS)) if name in names else layer
            for name, layer in self.layers.items()
        }
        return replace(self, layers=layers)

    def without_zero_points(self, names: Collection[LayerName]) -> "QuantConfig":
        """Returns the configuration in which the inputs of some layers have no zero point."""
        layers = {
            name: replace(layer, activation=replace(layer.activation, asymmetric=False)) if name in names else layer
            for name, layer in self.layers.items()
        }
        return replace(self, layers=layers)

    def with_enabled(self, configuration: Mapping[str, bool]) -> "QuantConfig":
        """Returns the configuration with another decision for the layers given."""
        layers = {
            name: replace(layer, quant_enable=configuration.get(name, layer.quant_enable))
            for name, layer in self.layers.items()
        }
        return replace(self, layers=layers)
