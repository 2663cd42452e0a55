"""The names of nodes, one type per graph, so that the type checker tells a name of one graph from that of another.

    original ---prepare---> prepared ---fuse---> fused ---quantize---> quantized

A model passes through four graphs. The same name may stand for different values in two of them: the fold of a BatchNorm
gives its name to a BiasAdd, and a rewritten layer leaves its name to the node that yields its value. So a name means
nothing without its graph, and only these mappings lead from one graph to another:

- ``PreparedGraph.original_names``: a prepared node to the original nodes that it stands for; none, one or several.
- ``PreparedGraph.renamed``: a prepared layer to the original node that a configuration may call it by.
- ``FusedGraph.accumulator_of`` and ``tail_of``: a layer to the fused nodes that yield its sums and its value.
- ``FusedGraph.originals``: fused nodes to the original nodes that they stand for.
- ``FusedGraph.prepared_values`` and ``original_values``: the fused nodes that yield the value which the node of the
  same name has in the prepared graph, or in the model's file.
- ``QuantizedGraph.origins`` and ``values``, which the node map keeps in a file: a quantized node to the original nodes
  that it stands for, and to the prepared node whose value it reproduces; ``divided`` if its channels are balanced.

A layer is the exception: preparation decides its name, and fusion keeps it. So ``LayerName`` names a node of both
graphs, and is the key of a configuration, of factors and of results. The node of a quantized layer has another name if
an output has taken that of the layer (``QuantizedLayer.key``). Preparation depends on the outputs asked for, so that a
record may know a layer by the name that it has with other outputs: a ``RecordKey`` becomes a ``LayerName`` where
``layer_names`` of the model is asked.

The index of a graph knows the type of its names (``NamedGraph``), so that none is looked up in another graph. Functions
that read or edit any graph take plain strings (``GraphView``).
"""

from typing import NewType

# A node of the model's file.
OriginalName = NewType("OriginalName", str)
# A node of the graph after preparation.
PreparedName = NewType("PreparedName", str)
# A node of the graph after fusion.
FusedName = NewType("FusedName", str)
# A node of the quantized graph.
QuantizedName = NewType("QuantizedName", str)
# A layer; or ``op:input``, the input of another op that is quantized like that of a layer (spec section 4).
LayerName = NewType("LayerName", str)
# What a record calls a layer, or such an input.
RecordKey = NewType("RecordKey", str)
