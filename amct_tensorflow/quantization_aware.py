"""The public step for models whose training faked quantization: convert."""

from amct_tensorflow.arguments import require_names, require_path
from amct_tensorflow.errors import ModelError
from amct_tensorflow.graph.model_file import check_not_quantized, check_outputs
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.loading.load import load_frozen
from amct_tensorflow.log import log_for
from amct_tensorflow.qat.plan import FakeQuantizedModel, read_fake_quantized
from amct_tensorflow.quantized.builder import quantize_graph
from amct_tensorflow.quantized.model_files import ModelPaths, write_quantized_model
from amct_tensorflow.record.corrections import remove_corrections
from amct_tensorflow.record.record_file import write_record


def convert_qat_model(pb_model: str, outputs: list[str], save_path: str, record_file: str | None = None) -> list[str]:
    """Writes the quantized model of one whose training faked quantization.

    A layer is quantized if both its input and its weights come from ``FakeQuantWithMinMaxVars``,
    ``FakeQuantWithMinMaxArgs`` or, for weights, ``FakeQuantWithMinMaxVarsPerChannel``, and int8 has their values; an
    AvgPool, if its input does. Its integers are those that the fake quantizers imply; only biases are rounded anew.
    What stands in front of other ops becomes a pair of AscendQuant and AscendAntiQuant. A warning names each layer
    that stays in float although there are fake quantizers around it, and why.

    Args:
        pb_model: the frozen model (.pb) with its fake quantizers, or the directory of a SavedModel.
        outputs: output operators of the frozen graph, without ``:0``.
        save_path: folder and prefix: ``out/net`` gives ``out/net_quantized.pb`` and ``out/net_quant.json``.
        record_file: file for the factors of the layers; ``convert_model`` takes it, with the float model.

    Returns:
        The output operators of the quantized model; they have the names that they had.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ModelError: the model cannot be read, lacks an output, or has no layer that can be converted.
        RecordError: a bias does not fit 32 bits.
        OutputError: a file cannot be written.
    """
    name = "convert_qat_model"
    require_path(name, "pb_model", pb_model)
    require_names(name, "outputs", outputs)
    require_path(name, "save_path", save_path, may_be_empty=True)
    if record_file is not None:
        require_path(name, "record_file", record_file)
    frozen = load_frozen(pb_model)
    view = GraphView(frozen.graph_def)
    check_not_quantized(view, pb_model)
    check_outputs(view, outputs, pb_model, frozen.outputs)
    model = read_fake_quantized(view, outputs, pb_model)
    _tell(model, pb_model)
    paths = ModelPaths.of(save_path)
    write_quantized_model(paths, quantize_graph(model.plan), frozen.data if frozen.frozen_now else None)
    if record_file is not None:
        remove_corrections(record_file)
        write_record(record_file, model.layers)
    log_for(name).info("The model is saved in %s", paths.model)
    return list(outputs)


def _tell(model: FakeQuantizedModel, pb_model: str) -> None:
    """Says what is quantized and what is not.

    Raises:
        ModelError: nothing is.
    """
    log = log_for("convert_qat_model")
    for name, reason in model.obstacles.items():
        log.warning("Layer %s stays in float: %s.", name, reason)
    if model.unasked:
        log.warning(
            "%d layers stay in float, because there are no fake quantizers around them: %s",
            len(model.unasked), ", ".join(model.unasked),
        )  # fmt: skip
    if model.kept:
        log.warning(
            "%d fake quantizers stay as they are (int8 does not have their values, or only a run tells them): %s",
            len(model.kept), ", ".join(model.kept),
        )  # fmt: skip
    if not model.layers:
        raise ModelError(
            f"No layer of {pb_model} has fake quantizers of int8 around it. Give a model that was trained with them, "
            "and frozen as it is; a float model is quantized by accuracy_based_auto_calibration."
        )
    log.info("%d layers will be in int8.", len(model.layers))
