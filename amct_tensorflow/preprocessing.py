"""The public step before calibration: balancing activations against weights (DMQ, spec section 7.6)."""

from collections.abc import Mapping

import tensorflow as tf

from amct_tensorflow.arguments import require_graph, require_names, require_path
from amct_tensorflow.calibration.balancing import Balancer
from amct_tensorflow.models.float_model import FloatModel
from amct_tensorflow.quantization import read_config_for
from amct_tensorflow.record.corrections import remove_corrections
from amct_tensorflow.record.record_file import write_record


def quantize_preprocess(graph: tf.Graph, config_file: str, record_file: str, outputs: list[str] | None = None) -> None:
    """Prepares a graph for balancing, in place; open the session afterwards.

    Run the graph's outputs on ``batch_num`` batches afterwards, in any session on ``graph``; the record then says by
    what the inputs of layers are divided. The graph's values do not change. Call ``quantize_model`` next, on a fresh
    graph, with the same record.

    Balanced is what can be without changing what the model computes: tensors that only layers yield and read, through
    sums, ReLU and pooling. ``dmq_balancer_param`` of the configuration says which layers ask for it, and how strongly;
    if none does, all layers that are quantized do, with 0.5. A warning names each layer that asks in vain.

    Args:
        graph: float graph in inference form; it gets nodes that observe.
        config_file: configuration written by ``create_quant_config``.
        record_file: file for the factors; it is emptied now.
        outputs: names of the output operators; needed if another node reads one, since its values must not change.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ConfigValueError: the configuration does not fit the graph.
        ModelError: the graph is quantized already, or lacks an output.
    """
    name = "quantize_preprocess"
    require_graph(name, graph)
    require_path(name, "config_file", config_file)
    require_path(name, "record_file", record_file)
    if outputs is not None:
        require_names(name, "outputs", outputs)
    model = FloatModel.of_graph(graph, outputs or ())
    config = read_config_for(model, config_file)

    def write(balance: Mapping[str, tuple[float, ...]]) -> None:
        write_record(record_file, {}, balance, announce=False)

    Balancer(model, config, write)
    write_record(record_file, {})
    remove_corrections(record_file)


quantized_preprocess = quantize_preprocess  # so it stands in the examples of the original's documentation
