"""What torch's exporter leaves to tidy: shapes computed at run time, traces of where the code lay."""

from __future__ import annotations

import ast
from importlib.metadata import version

import numpy as np
import onnx
from galip_runtime.bundle.manifest import CONDITION
from onnx_ir.passes import common
from onnxscript import ir
from onnxscript.optimizer import optimize_ir

from galip_export.check import described

__all__ = ["finish", "name_condition", "simplify"]

_IR_VERSION = 8  # the one that came with opset 18: every reader of that opset takes it
_FOLDED = 2**21
"""numbers of a tensor that is computed from constants alone at most: the ViT's table of positions"""


def simplify(model: ir.Model) -> None:
    """Fold constants, make the shapes of reshapes constant, drop what nothing uses. In place."""
    # a second iteration finds nothing more and takes as long
    optimize_ir(model, num_iterations=1, input_size_limit=_FOLDED, output_size_limit=_FOLDED)
    for node in model.graph:
        if node.op_type == "Reshape":
            _make_constant(model.graph, node)
    _share_lengths(model.graph)
    tidy = (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
    )
    ir.passes.Sequential(*tidy)(model)


def name_condition(model: ir.Model) -> None:
    """Name what depends on the sentence alone `CONDITION`, in place: where a runtime cuts the graph.

    Nothing else reads the sentence afterwards: the batch size is the noise's.
    """
    noise, sentence = model.graph.inputs
    for node in [node for node, _ in sentence.uses() if node.op_type == "Shape"]:
        node.replace_input_with(0, noise)
    (product,) = [node for node, _ in sentence.uses()]
    product.outputs[0].name = CONDITION


def finish(model: ir.Model, name: str) -> onnx.ModelProto:
    """`model` as a file's content: nodes named after their modules, nothing that tells where it was made."""
    for index, node in enumerate(model.graph):
        # "['', 'bridge', 'bridge.fc', 'linear']": the modules from the outside in, then the operation
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        module = scopes[-2] if len(scopes) > 1 and not scopes[-2].startswith("_") else ""
        node.name = f"{module}/{node.op_type}_{index}".lstrip("/")
    proto = ir.to_proto(model)
    proto.ir_version = _IR_VERSION
    proto.producer_name, proto.producer_version = "galip_export", version("galip")
    proto.graph.name = name
    computed = {output for node in proto.graph.node for output in node.output}
    known = [value for value in proto.graph.value_info if value.name in computed]  # not the weights' again
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(known)
    for entry in described(proto):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    return proto


def _share_lengths(graph: ir.Graph) -> None:
    """Take a size that is known at run time alone from the first tensor that has it.

    Later ones may be transposed, and onnxruntime moves the transposition past `Shape`, to a node on the CPU.
    """
    lengths: dict[tuple[object, ...], ir.Value] = {}
    for node in graph:
        if node.op_type != "Shape":
            continue
        (source,) = node.inputs
        assert source is not None
        assert source.shape is not None
        start, end = (
            node.attributes.get_int(name, default) for name, default in (("start", 0), ("end", None))
        )
        sizes = tuple(size if isinstance(size, int) else size.value for size in source.shape[start:end])
        assert None not in sizes, f"{node}: {source.shape}"  # two without a name are not one
        first = lengths.setdefault(sizes, node.outputs[0])
        if first is not node.outputs[0]:
            ir.convenience.replace_all_uses_with(node.outputs[0], first)


def _make_constant(graph: ir.Graph, node: ir.Node) -> None:
    """Give `node`, a Reshape, a constant shape: 0 keeps the input's size, -1 (once) is what is left."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    assert source.shape is not None
    assert result.shape is not None
    sizes = [
        size if isinstance(size, int) else 0 if source.shape[axis : axis + 1] == (size,) else -1
        for axis, size in enumerate(result.shape)
    ]
    assert sizes.count(-1) <= 1, f"{node}: {source.shape} to {result.shape}"
    shape = ir.Value(name=f"{result.name}_shape", const_value=ir.tensor(np.array(sizes, np.int64)))
    graph.register_initializer(shape)
    node.replace_input_with(1, shape)
    node.attributes.pop("allowzero", None)  # with it, 0 would mean an empty axis
