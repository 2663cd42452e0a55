"""Networks in the forms that they have in the wild come down to layers with biases."""

import numpy as np
import pytest
from forms import FORMS
from graphs import check_same_values, ops_of, run

from amct_tensorflow.graph.graph_runner import session_options
from amct_tensorflow.graph.rewrite import subgraph
from amct_tensorflow.graph.view import GraphView
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.model_file import import_graph
from amct_tensorflow.model.preparation.prepare import prepare


@pytest.mark.parametrize("name", FORMS)
def test_prepared_and_fused_it_computes_what_it_did(name):
    form = FORMS[name]
    graph_def, feeds = form.graph_def(), form.feeds()
    graph = prepare(GraphView(graph_def), form.outputs, "test")
    options = session_options(import_graph(graph_def, "test"), run_often=False)
    check_same_values(graph_def, graph.view.graph_def, feeds, random_nodes(graph_def), options)
    fused = FloatModel.of_graph(import_graph(graph_def, "test"), form.outputs).fuse()
    part = subgraph(fused.graph_def, form.outputs)
    present = {key: value for key, value in feeds.items() if any(node.name == key for node in part.node)}
    expected, actual = (
        run(*each, options) for each in ((graph_def, form.outputs, feeds), (part, form.outputs, present))
    )
    for output, one, other in zip(form.outputs, expected, actual, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4 * np.abs(one).max(), err_msg=output)
    if form.left is not None:
        assert ops_of(part) == form.left


def random_nodes(graph_def):
    return [node.name for node in graph_def.node if "random_uniform" in node.name]
