"""Finds out whether the weight scales of a record belong to folded weights or to unfolded ones.

A record does not say reliably whether its scales are those of weights with the BatchNorm folded into them, or without.
``skip_fusion`` should tell, but tools fold differently, and few write the field (spec section 7.3 describes such a
record). The scales themselves tell: the scale of int8 weights is about the largest of them divided by 127.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from amct_tensorflow.graph.names import LayerName
from amct_tensorflow.io.table import plural
from amct_tensorflow.log import log_for
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.fusion import FusedGraph, FusedLayer
from amct_tensorflow.quantize.algorithms.scales import arq_scales
from amct_tensorflow.quantize.algorithms.weight_steps import adapt_steps
from amct_tensorflow.quantize.record.factors import LayerFactors, unfused_layers

# In octaves, root mean square over the channels. Scales chosen for other weights were seen to lie off by 0.6 and more;
# a search for the best clipping moves them by less than 0.2.
_FITS_WITHIN = 0.35

_UNFOLDED = (
    "fit the weights only without the BatchNorm behind them, which is therefore not folded; say so with "
    "skip_fusion: true in the record"
)
_FOLDED = (
    "fit the weights only with the BatchNorm folded into them, which is therefore done; say so with "
    "skip_fusion: false in the record"
)
_UNKNOWN = (
    "are far off the range of the weights, so that these layers lose accuracy; use the record that was made for this "
    "model, with skip_fusion: true where its scales are those of weights without BatchNorm"
)


def fuse_as_scales_fit(model: FloatModel, factors: Mapping[LayerName, LayerFactors], fused: FusedGraph) -> FusedGraph:
    """Folds BatchNorms where the scales belong to folded weights, and warns where the record says otherwise.

    Args:
        model: the float model.
        factors: a record that was checked against it.
        fused: the model as fused by the ``skip_fusion`` of the record.

    Returns:
        The model fused so that as many layers as possible fit their scales.
    """
    misfits = _misfits(factors, fused, factors)
    if not misfits:
        return fused
    turned = {name: replace(factors[name], skip_fusion=not factors[name].skip_fusion) for name in misfits}
    others = model.fuse(unfused_layers({**factors, **turned}), fused.balance)
    unknown = _misfits(factors, others, misfits)
    settled = [name for name in misfits if name not in unknown]
    unfolded = [name for name in settled if turned[name].skip_fusion]
    folded = [name for name in settled if not turned[name].skip_fusion]
    _warn(unfolded, _UNFOLDED)
    _warn(folded, _FOLDED)
    _warn(unknown, _UNKNOWN)
    return model.fuse(unfused_layers({**factors, **{name: turned[name] for name in settled}}), fused.balance)


def _misfits(
    factors: Mapping[LayerName, LayerFactors], fused: FusedGraph, names: Collection[LayerName]
) -> list[LayerName]:
    """Returns the layers among ``names`` whose scales do not belong to their weights."""
    return [name for name in names if name in fused.layers and not _fits(fused.layers[name], factors[name])]


def _fits(layer: FusedLayer, factors: LayerFactors) -> bool:
    if layer.weights is None:
        return True
    given = np.asarray(factors.scale_w, np.float64)
    arq = arq_scales(layer.name, layer.op_type, layer.weights, given.size > 1)
    expected = adapt_steps(layer, factors.scale_d, arq, factors.num_bits).scales.astype(np.float64)
    # Of a channel whose scale says nothing of its weights, one of the two is 1, which no other has by chance: that of
    # ARQ if the weights are all 0, and the one given if a tool took them for that.
    octaves = np.log2(given / expected)[(arq != 1) & (given != 1)]
    return not octaves.size or bool(np.sqrt(np.mean(octaves**2)) <= _FITS_WITHIN)


def _warn(names: Collection[str], problem: str) -> None:
    if names:
        log_for("record").warning(
            "The weight scales of %s %s: %s", plural(len(names), "layer"), problem, ", ".join(names)
        )
