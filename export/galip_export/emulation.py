"""What an fp16 graph gives on a GPU, computed on a CPU."""

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
    """`model`, of `in_half`, in float32 with every fp16 tensor rounded to fp16: as a GPU computes it.

    A GPU adds products up in fp32 and rounds what it writes; so does this. onnxruntime's CPU provider would
    compute an fp16 graph in fp32 and leave out the rounding between its nodes.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    halves = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    nodes = []
    for node in model.graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
        for place, name in enumerate(node.output):
            if name not in halves:
                continue
            exact, rounded = f"{name}/exact", f"{name}/rounded"
            copy.output[place] = exact
            nodes.append(
                helper.make_node("Cast", [exact], [rounded], name=f"{rounded}/Cast", to=TensorProto.FLOAT16)
            )
            nodes.append(
                helper.make_node("Cast", [rounded], [name], name=f"{rounded}/back", to=TensorProto.FLOAT)
            )
        if node.op_type == "Cast" and node.output[0] in halves:
            copy.attribute[0].i = TensorProto.FLOAT
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for value in result.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def emulated_bundle(bundle: Path, out: Path, precision: str) -> Path:
    """`out`, a new folder: `bundle` with its graphs in `precision` emulated, and called fp32."""
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
