"""Writes models as the converter of TensorFlow.js does, by its documentation."""

import base64
import json
import struct
from pathlib import Path

import numpy as np
import tensorflow as tf

_ENUM = {1: "DT_FLOAT", 3: "DT_INT32", 4: "DT_UINT8", 7: "DT_STRING", 9: "DT_INT64", 10: "DT_BOOL", 20: "DT_RESOURCE"}


def text(data):
    return base64.b64encode(data).decode()


def shape_of(shape):
    return {"unknownRank": True} if shape.unknown_rank else {"dim": [{"size": str(each.size)} for each in shape.dim]}


def attribute(value):
    """An attribute as JSON: bytes in base64, 64-bit integers as text, types by name."""
    kind = value.WhichOneof("value")
    if kind == "s":
        return {"s": text(value.s)}
    if kind == "i":
        return {"i": str(value.i)}
    if kind in ("f", "b"):
        return {kind: getattr(value, kind)}
    if kind == "type":
        return {"type": _ENUM[value.type]}
    if kind == "shape":
        return {"shape": shape_of(value.shape)}
    if kind == "func":
        return {"func": {"name": value.func.name}}
    if kind == "list":
        held = value.list
        return {"list": {"i": [str(each) for each in held.i]} if held.i
                else {"s": [text(each) for each in held.s]} if held.s
                else {"type": [_ENUM[each] for each in held.type]} if held.type
                else {"shape": [shape_of(each) for each in held.shape]} if held.shape else {}}  # fmt: skip
    assert kind == "tensor", kind
    return {"tensor": {"dtype": _ENUM[value.tensor.dtype], "tensorShape": shape_of(value.tensor.tensor_shape)}}


def node(node_def):
    described = {"name": node_def.name, "op": node_def.op}
    if node_def.input:
        described["input"] = list(node_def.input)
    return described | {"attr": {name: attribute(value) for name, value in sorted(node_def.attr.items())}}


def encode(name, value, quantize=None):
    """Returns the entry of a weight in the manifest, and its bytes."""
    entry = {"name": name, "shape": list(value.shape)}
    if value.dtype.kind in "OS":
        strings = [bytes(each) for each in value.reshape(-1)]
        return entry | {"dtype": "string"}, b"".join(struct.pack("<I", len(each)) + each for each in strings)
    value = value.astype("int32") if value.dtype == np.int64 else value
    entry["dtype"] = {"f": "float32", "i": "int32", "b": "bool", "c": "complex64", "u": "int32"}[value.dtype.kind]
    if quantize is None or value.dtype.kind not in ("f" if quantize == "float16" else "fi"):
        return entry, value.astype(
            {"float32": "<f4", "int32": "<i4", "bool": "u1", "complex64": "<c8"}[entry["dtype"]]
        ).tobytes()
    if quantize == "float16":
        return entry | {"quantization": {"dtype": "float16", "original_dtype": "float32"}}, value.astype(
            "<f2"
        ).tobytes()
    levels = {"uint8": 255, "uint16": 65535}[quantize]
    least, scale = float(value.min()), float((value.max() - value.min()) / levels) or 1.0
    stored = np.round((value.astype(float) - least) / scale).astype({"uint8": "u1", "uint16": "<u2"}[quantize])
    quantization = {"dtype": quantize, "min": least, "scale": scale, "original_dtype": entry["dtype"]}
    return entry | {"quantization": quantization}, stored.tobytes()


def write(folder, document, groups, shard=4096):
    """Writes a JSON file, and each group of weights in shards of some bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    document["weightsManifest"] = []
    for number, group in enumerate(groups, 1):
        entries, pieces = zip(*group, strict=True) if group else ((), ())
        data = b"".join(pieces)
        parts = [data[at : at + shard] for at in range(0, len(data), shard)]
        names = [f"group{number}-shard{index}of{len(parts)}.bin" for index in range(1, len(parts) + 1)]
        for name, part in zip(names, parts, strict=True):
            (folder / name).write_bytes(part)
        document["weightsManifest"].append({"paths": names, "weights": list(entries)})
    (folder / "model.json").write_text(json.dumps(document))
    return folder


def write_graph_model(folder, graph_def, outputs, inputs=("x",), quantize=None, groups=1, metadata=False):
    """Writes a graph model; ``outputs`` gives per label a tensor."""
    bodies = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
    constants = {each.name: tf.make_ndarray(each.attr["value"].tensor) for body in bodies for each in body
                 if each.op == "Const"}  # fmt: skip
    encoded = [encode(name, np.asarray(value), quantize) for name, value in constants.items()]
    topology = {"node": [node(each) for each in graph_def.node], "library": {}, "versions": {"producer": 1087}}
    signature = {
        "inputs": {name: {"name": f"{name}:0"} for name in inputs},
        "outputs": {label: {"name": name} for label, name in outputs.items()},
    }
    document = {"format": "graph-model", "generatedBy": "2.21.0", "convertedBy": "test", "modelTopology": topology}
    document |= {"userDefinedMetadata": {"signature": signature}} if metadata else {"signature": signature}
    return write(Path(folder), document, [encoded[at::groups] for at in range(groups)])


def write_layers_model(folder, config, version, weights):
    """Writes a layers model of the description of its layers and its weights by name."""
    topology = {"keras_version": version, "backend": "tensorflow", "model_config": config}
    document = {"format": "layers-model", "generatedBy": f"keras v{version}", "modelTopology": topology}
    return write(Path(folder), document, [[encode(name, value) for name, value in weights.items()]])
