"""An inspection as JSON; the page on file formats describes it."""

import json
from typing import Any

from amct_tensorflow.models.endpoints import Endpoint
from amct_tensorflow.models.float_scalings import FloatScaling
from amct_tensorflow.models.inspection import InspectedLayer, Inspection
from amct_tensorflow.models.inspection_notes import notes

# To be raised when a key changes its meaning or goes; new ones may come.
VERSION = 1


def dump_inspection(inspection: Inspection) -> str:
    """Returns an inspection as JSON."""
    share = inspection.share(inspection.quantizable)
    document = {
        "version": VERSION,
        "model": str(inspection.source),
        "inputs": [_endpoint(each) | {"has_default": each.has_default} for each in inspection.inputs],
        "outputs": [_endpoint(each) for each in inspection.outputs],
        "layers": [_layer(each) for each in inspection.layers],
        "float_scalings": [_scaling(each) for each in inspection.float_scalings],
        "unused_layers": list(inspection.unused),
        "summary": {
            "layers": len(inspection.layers),
            "quantizable": len(inspection.quantizable),
            "parameters": inspection.parameters,
            "multiply_accumulates": inspection.multiply_accumulates,
            "int8_share": share.value if inspection.layers else None,
            "int8_share_of": share.of,
            "int8_share_is_upper_bound": share.is_upper_bound,
        },
        "notes": notes(inspection),
    }
    return json.dumps(document, indent=1)


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {"name": endpoint.name, "dtype": endpoint.dtype, "shape": endpoint.shape}


def _layer(layer: InspectedLayer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "type": layer.op_type,
        "input_shape": layer.input_shape,
        "weights_shape": layer.weights_shape,
        "output_shape": layer.output_shape,
        "parameters": layer.parameters,
        "multiply_accumulates": layer.multiply_accumulates,
        "in_loop": layer.in_loop,
        "folded": layer.absorbed,
        "folded_types": layer.absorbed_types,
        "quantizable": layer.obstacle is None,
        "reason": layer.obstacle,
    }


def _scaling(scaling: FloatScaling) -> dict[str, Any]:
    return {"name": scaling.name, "types": scaling.op_types, "reason": scaling.reason}
