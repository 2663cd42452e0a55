"""How much longer does the quantized model take in TensorFlow than the original one?

Both run in one process on the same batch in turn; the figure is the median ratio. It also tells the time of each kind
of op in both models, which shows what the simulation costs.
"""

from collections import Counter

from measuring import (
    BATCH,
    INPUT,
    OUTPUT,
    ReadyImages,
    interleaved,
    parse_inputs,
    publish,
    quantize,
    ratio,
    report,
    scratch_folder,
)

import tensorflow as tf

from amct_tensorflow.model.model_file import import_graph, load_graph, read_model

ROUNDS = 30
SHOWN_OPS = 8


def main() -> None:
    """Measures and reports."""
    inputs, _ = parse_inputs("time of the quantized model against the original one")
    with scratch_folder():
        quantize(inputs, ReadyImages(inputs, "top-1", 100.0), as_original=False)
        graphs = {
            "original": load_graph(inputs.model),
            "quantized": import_graph(read_model("net_quantized.pb").graph_def, "net_quantized.pb"),
        }
    batch = inputs.images[0][:BATCH]
    sessions = {name: tf.compat.v1.Session(graph=graph) for name, graph in graphs.items()}
    actions = {
        name: lambda session=session: session.run(f"{OUTPUT}:0", {INPUT: batch}) for name, session in sessions.items()
    }
    seconds = interleaved(actions, ROUNDS)
    rows = [
        {
            "model": name,
            "ms per batch (median)": 1000 * sorted(values)[len(values) // 2],
            "ratio to the original": ratio(seconds, name, "original"),
            "ms by kind of op": op_times(sessions[name], batch),
        }
        for name, values in seconds.items()
    ]
    report("simulation", rows, f"Batches of {BATCH}, {ROUNDS} rounds.")
    publish("simulation.py", rows, inputs=inputs)


def op_times(session: tf.compat.v1.Session, batch: object) -> str:
    """Returns the time of the ops that take the longest, from TensorFlow's own trace of one batch."""
    options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
    metadata = tf.compat.v1.RunMetadata()
    session.run(f"{OUTPUT}:0", {INPUT: batch}, options=options, run_metadata=metadata)
    times: Counter[str] = Counter()
    for device in metadata.step_stats.dev_stats:
        for node in device.node_stats:
            kind = node.timeline_label.split(" = ")[-1].split("(")[0]
            times[kind] += node.op_end_rel_micros - node.op_start_rel_micros
    return ", ".join(f"{kind} {micros / 1000:.0f}" for kind, micros in times.most_common(SHOWN_OPS) if micros > 500)


if __name__ == "__main__":
    main()
