"""Emulation: what an fp16 graph computes on a GPU, computed on a CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from galip_runtime.bundle.manifest import GRAPHS, MANIFEST_NAME, describe_file, read_manifest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from galip_export.staging import write

__all__ = ["emulated", "emulated_bundle"]


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the fp16 graph `model` in float32 with every fp16 tensor rounded to fp16, as a GPU computes it.

    A GPU adds products up in fp32 and rounds what it writes, and so does this. onnxruntime's CPU provider
    would compute an fp16 graph in fp32 and leave out the rounding between its nodes.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    halves = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    nodes = [rounded for node in model.graph.node for rounded in _rounded(node, halves)]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            weight = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    for value in result.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def _rounded(node: NodeProto, halves: set[str]) -> list[NodeProto]:
    """Return `node` in float32, followed by Casts to fp16 and back of its outputs that are in `halves`."""
    copy = NodeProto()
    copy.CopyFrom(node)
    nodes = [copy]
    for position, name in enumerate(node.output):
        if name not in halves:
            continue
        exact, rounded = f"{name}/exact", f"{name}/rounded"
        copy.output[position] = exact
        nodes += [
            helper.make_node("Cast", [exact], [rounded], name=f"{rounded}/Cast", to=TensorProto.FLOAT16),
            helper.make_node("Cast", [rounded], [name], name=f"{rounded}/back", to=TensorProto.FLOAT),
        ]
    if node.op_type == "Cast" and node.output[0] in halves:
        copy.attribute[0].i = TensorProto.FLOAT
    return nodes


def emulated_bundle(bundle: Path, out: Path, precision: str) -> Path:
    """Return `out`, a new folder: `bundle` with its graphs in `precision` emulated, and called fp32."""
    manifest = read_manifest(bundle)
    out.mkdir()
    vocabulary = manifest.tokenizer.file
    write(out / vocabulary, (bundle / vocabulary).read_bytes())
    graphs = {}
    for graph in GRAPHS:
        spec = replace(manifest.graphs[graph][precision], file=f"{graph}.onnx")
        proto = emulated(onnx.load(bundle / manifest.graphs[graph][precision].file))
        write(out / spec.file, proto.SerializeToString())
        graphs[graph] = {"fp32": spec}
    names = (vocabulary, *(specs["fp32"].file for specs in graphs.values()))
    files = {name: describe_file(out / name) for name in names}
    write(out / MANIFEST_NAME, replace(manifest, graphs=graphs, files=files).to_json().encode())
    return out
