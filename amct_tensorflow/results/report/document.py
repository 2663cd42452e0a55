"""The content of a report: all numbers of its page.

These classes are the format of report.json; docs/report.md describes each key.
"""

from dataclasses import dataclass
from typing import Literal

from amct_tensorflow.devices.rungs import WIDE_BITS
from amct_tensorflow.quantize.quantized.model_files import FileContent

# To be raised when a key changes its meaning or goes; new ones may come.
VERSION = 1

Metric = int | float | str
Why = Literal["unquantizable", "configuration", "rolled_back", "device", "costless"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval of the loss, and on how many images it rests."""

    lower: float
    upper: float
    confidence: float
    images: int


@dataclass(frozen=True)
class Outcome:
    """How the run ended.

    Attributes:
        target_met: whether the saved model satisfies the requirement.
        loss: its loss; None if that is not finite.
        target: the loss up to which a model satisfies; None if that is not known.
        interval: confidence interval of the loss; None without results per image.
        original: metric of the original model; text where JSON has no such number.
        all_quantized: with every layer that was to be quantized.
        saved: of the saved model.
        interrupted: whether the search was interrupted, so that the best model until then was saved.
    """

    target_met: bool
    loss: float | None
    target: float | None
    interval: Interval | None
    original: Metric
    all_quantized: Metric
    saved: Metric
    interrupted: bool


@dataclass(frozen=True)
class Evaluation:
    """A configuration that was evaluated.

    Attributes:
        number: its number among the evaluations of the run, of which 1 was that of the original model.
        in_float: the layers that it left in float.
        float_mac_share: their share of the multiply-accumulates of the layers that can be quantized.
        metric: what the evaluator returned.
        loss: as it judged; None if that is not finite.
        satisfied: whether it satisfied.
        in_integers: whether its execution graph was run in its place, which yields the same.
        saved: whether this is the saved model.
        in_16_bits: the layers that read activations of 16 bits.
        wide_mac_share: their share of the multiply-accumulates, likewise.
    """

    number: int
    in_float: tuple[str, ...]
    float_mac_share: float
    metric: Metric
    loss: float | None
    satisfied: bool
    in_integers: bool
    saved: bool
    in_16_bits: tuple[str, ...] = ()
    wide_mac_share: float = 0.0


@dataclass(frozen=True)
class Ranking:
    """How the damage of a layer was measured.

    Attributes:
        sensitivity: name of the sensitivity that was asked for.
        of_outputs: whether it compared the outputs of the model; else those of each layer.
    """

    sensitivity: str
    of_outputs: bool


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each of equal parts of the range from ``lowest`` to ``highest``."""

    lowest: float
    highest: float
    counts: tuple[float, ...]


@dataclass(frozen=True)
class Activation:
    """How the input of a layer is quantized.

    Attributes:
        scale: step of the quantized values.
        offset: their zero point.
        clip: the smallest and the largest value that they can stand for.
        observed: the histogram of calibration; None if an earlier version calibrated.
        clipped: share of the observed values beyond the clip; likewise.
        num_bits: how many bits they have, 8 or 16.
    """

    scale: float
    offset: int
    clip: tuple[float, float]
    observed: Histogram | None
    clipped: float | None
    num_bits: int = 8  # reports of before there were 16 lack it


@dataclass(frozen=True)
class Weights:
    """The weights of a layer, after folding.

    Attributes:
        shape: their shape.
        scales: their steps: one, or one per output channel.
        lowest: per output channel, the smallest weight.
        highest: per output channel, the largest weight.
    """

    shape: tuple[int, ...]
    scales: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]


@dataclass(frozen=True)
class InputProduct:
    """A product with a constant, which divides the channels of what layers read.

    Attributes:
        values: how many values it multiplies, for one image; None if that is not known.
        share: the same as a share of the multiply-accumulates of the layers that read it.
        layers: the names of these layers.
    """

    values: int | None
    share: float | None
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """A layer of the model, in the order of the graph.

    Attributes:
        name: its name.
        type: its op type.
        int8: whether the saved model quantizes it.
        why: the kind of reason why it is in float; None if it is not.
        reason: the same in words.
        evaluation: in which evaluation it was in float first; None if it was not rolled back.
        multiply_accumulates: for one image; None if that is not known.
        parameters: number of its weights and biases.
        output_shape: for one image; None if that is not known.
        damage: one minus the similarity that ranks it; None of a layer that was not calibrated.
        sqnr_db: signal-to-quantization-noise ratio of its output if it alone is quantized.
        uncorrected_sqnr_db: the same without the correction of its bias; None also without a correction.
        activation: how its input is quantized; of a layer rolled back, how it would be.
        weights: its weights; None of a layer without, or that was not calibrated.
        balance: by what each channel of its input is divided; None if it is not balanced.
        input_product: the product that divides its input; None if it is not balanced, or constants of the model divide
            it, which costs nothing.
        second_operand: how the second operand of a product of two computed ones is quantized; None of other layers.
        rung: the rung of the device's ladder on which the saved model has it, such as ``a16w8``; None if the
            configuration leaves it in float.
    """

    name: str
    type: str
    int8: bool
    why: Why | None
    reason: str | None
    evaluation: int | None
    multiply_accumulates: int | None
    parameters: int
    output_shape: tuple[int | None, ...] | None
    damage: float | None
    sqnr_db: float | None
    uncorrected_sqnr_db: float | None
    activation: Activation | None
    weights: Weights | None
    balance: tuple[float, ...] | None = None
    input_product: InputProduct | None = None
    second_operand: Activation | None = None
    rung: str | None = None

    @property
    def precision(self) -> str:
        """In what the saved model has it, in words."""
        if not self.int8:
            return "float"
        return "16 bits" if self.activation is not None and self.activation.num_bits == WIDE_BITS else "int8"


@dataclass(frozen=True)
class Diagnosis:
    """Why a layer loses much by int8, and what helps.

    Attributes:
        layer: its name.
        share: its share of the damage of all layers.
        kind: ``outlier_channels``, ``tails``, ``far_mean``, ``few_values``, ``one_weight_scale``, or ``unknown``.
        detail: what is so of this layer, as a sentence.
        remedy: what helps, as a sentence or two.
    """

    layer: str
    share: float
    kind: str
    detail: str
    remedy: str


@dataclass(frozen=True)
class QuantizedInput:
    """An input of another op that is quantized (tensor_quantize)."""

    name: str
    activation: Activation


@dataclass(frozen=True)
class FloatScaling:
    """A BatchNorm, or another scaling of channels, that stays in float."""

    name: str
    reason: str


@dataclass(frozen=True)
class Table:
    """A constant whose rows are looked up, as those of an embedding.

    Attributes:
        name: the first node that looks it up.
        shape: its shape.
        float_bytes: how many bytes it takes in the original model.
        int8_bytes: how many it takes in int8, with a scale per row.
        int8: whether the saved model has it in int8.
        reason: why it cannot be; None if it can.
    """

    name: str
    shape: tuple[int, ...]
    float_bytes: int
    int8_bytes: int
    int8: bool
    reason: str | None


@dataclass(frozen=True)
class ChangedImage:
    """An image whose prediction differs between the original and the saved model.

    Attributes:
        number: which image of the evaluator's it is, from 0.
        label: its label.
        before: the prediction of the original model.
        after: the prediction of the saved model.
        picture: the image as a data URI.
    """

    number: int
    label: str
    before: str
    after: str
    picture: str


@dataclass(frozen=True)
class ChangedImages:
    """The images whose prediction has changed.

    Attributes:
        images: number of images that were evaluated; 0 if the evaluator does not tell predictions.
        changed: how many of them changed their prediction.
        lost: how many of these were right with the original model alone; None without results per image.
        won: how many of these are right with the saved model alone; likewise.
        shown: some of them, those that were lost first.
        note: why there is nothing to show; None if there is.
    """

    images: int
    changed: int
    lost: int | None
    won: int | None
    shown: tuple[ChangedImage, ...]
    note: str | None


@dataclass(frozen=True)
class Size:
    """The size of the model before and after.

    Attributes:
        original_bytes: of the frozen original model.
        quantized_bytes: of the quantized model.
        multiply_accumulates: of all layers, for one image; None if that of a layer is not known.
        int8_multiply_accumulates: those of them that the saved model does in int8; likewise.
        parameters: of all layers.
        int8_parameters: those of the layers in int8.
        wide_multiply_accumulates: those of the multiply-accumulates in int8 whose activations have 16 bits.
        content: what the bytes of the quantized model are; None in reports of earlier versions.
        given_bytes: of the files of the original model, if it was given in another form; likewise.
    """

    original_bytes: int
    quantized_bytes: int
    multiply_accumulates: int | None
    int8_multiply_accumulates: int | None
    parameters: int
    int8_parameters: int
    wide_multiply_accumulates: int | None = None
    content: FileContent | None = None
    given_bytes: int | None = None

    @property
    def smallest_bytes(self) -> int:
        """The size of the original: of its frozen graph, or of the files that were given if these take less."""
        return self.original_bytes if self.given_bytes is None else min(self.original_bytes, self.given_bytes)


@dataclass(frozen=True)
class Reproduction:
    """How to come to the same result again.

    Attributes:
        command: the command line, without ``--resume``.
        settings: what the run was asked for, by name.
        versions: of the software that computes, and whether TensorFlow uses oneDNN.
        machine: processor architecture, and number of CPUs.
        files: SHA-256 of files, by name.
        digests: of what else determines the result, by name; for comparison with another run's.
        calibration_images: how many images it was calibrated on; None if the data does not tell.
    """

    command: str
    settings: dict[str, str]
    versions: dict[str, str]
    machine: str
    files: dict[str, str]
    digests: dict[str, str]
    calibration_images: int | None


@dataclass(frozen=True)
class ExportedLayer:
    """What an export says of a layer."""

    name: str
    int8: bool | None = None
    reason: str | None = None
    snr_db: float | None = None


@dataclass(frozen=True)
class SaturatedExport:
    """How a runtime computes an exported file on a processor that saturates products of bytes.

    Attributes:
        kl: mean KL divergence of its outputs from those of the quantized model, in nats.
        agreement: share of the images for which both say the same.
        top1: top-1 accuracy in percent.
    """

    kl: float | None = None
    agreement: float | None = None
    top1: float | None = None


@dataclass(frozen=True)
class Export:
    """An exported model, compared with the simulation of the quantized model in TensorFlow.

    Attributes:
        format: its format.
        file: its name.
        file_bytes: its size.
        images: on how many images it was compared.
        simulation: metrics of the quantized model, by name.
        exported: metrics of the exported model, by name.
        kl: mean KL divergence between their outputs, in nats.
        agreement: share of the images for which both say the same.
        weight_bits: how many bits its weights have.
        this_processor: the result of its runtime by default, on a processor that saturates products of bytes.
        layers: what it says of single layers.
    """

    format: str = "?"
    file: str = "?"
    file_bytes: int | None = None
    images: int | None = None
    simulation: dict[str, float | None] | None = None
    exported: dict[str, float | None] | None = None
    kl: float | None = None
    agreement: float | None = None
    weight_bits: int | None = None
    this_processor: SaturatedExport | None = None
    layers: tuple[ExportedLayer, ...] = ()


@dataclass(frozen=True)
class DeviceFinding:
    """A node that breaks a rule of a device's compiler.

    Attributes:
        level: ``error``, ``warning`` or ``note``.
        rule: name of the rule.
        node: the node; empty for the whole model.
        text: the rule, as a sentence.
        detail: what is so of this node, as a sentence.
        remedy: what to do.
        certainty: how sure the rule is, in words.
        share: its share of the multiply-accumulates; None if it has none, or they are not known.
    """

    level: str
    rule: str
    node: str
    text: str
    detail: str
    remedy: str
    certainty: str
    share: float | None


@dataclass(frozen=True)
class DeviceVerdict:
    """What the compiler of a device is expected to make of the model, by public rules that were not tried.

    Attributes:
        device: name of the device.
        verdict: all in one line.
        findings: what was found, errors first.
        chains: how many quantized layers with weights there are.
        matched: how many of those the compiler is expected to recognize.
        int8_share: share of the multiply-accumulates that run in int8 there; None if it is not known.
        in_fp16: names of the layers that run in fp16 there.
        command: the command that compiles the model.
    """

    device: str
    verdict: str
    findings: tuple[DeviceFinding, ...]
    chains: int
    matched: int
    int8_share: float | None
    in_fp16: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class StageTime:
    """What a stage of the run took, without the stages inside it.

    Attributes:
        stage: its name.
        seconds: by the clock on the wall.
        processor_seconds: by the clock of the process, of all of its threads together; workers are not in it. None for
            a stage that went on beside others, which they count to.
    """

    stage: str
    seconds: float
    processor_seconds: float | None


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        version: of the format.
        model: name of the quantized model's file.
        outcome: whether it met the target.
        ranking: how the damage of layers was measured.
        evaluations: what was evaluated after the original model, in that order.
        layers: all layers of the model.
        inputs: other inputs that are quantized.
        float_scalings: BatchNorms and the like that stay in float.
        changed_images: which predictions have changed.
        size: size and multiply-accumulates before and after.
        reproduction: how to come to the same result.
        exports: what was exported later on.
        tables: its constants whose rows are looked up.
        device: what a device is expected to make of the model; None without a device.
        diagnoses: why the layers lose most that do, the most damaging first; none if all are in int8 and the target is
            met.
        times: where the time of the run went, until this report was begun; the only thing that equal runs differ in.
    """

    version: int
    model: str
    outcome: Outcome
    ranking: Ranking
    evaluations: tuple[Evaluation, ...]
    layers: tuple[Layer, ...]
    inputs: tuple[QuantizedInput, ...]
    float_scalings: tuple[FloatScaling, ...]
    changed_images: ChangedImages
    size: Size
    reproduction: Reproduction
    exports: tuple[Export, ...] = ()
    tables: tuple[Table, ...] = ()
    device: DeviceVerdict | None = None
    diagnoses: tuple[Diagnosis, ...] = ()
    times: tuple[StageTime, ...] = ()

    @property
    def in_float(self) -> list[Layer]:
        """The layers that the saved model computes in float."""
        return [layer for layer in self.layers if not layer.int8]

    @property
    def in_16_bits(self) -> list[Layer]:
        """The layers that the saved model has read 16 bits."""
        return [layer for layer in self.layers if layer.precision == "16 bits"]
