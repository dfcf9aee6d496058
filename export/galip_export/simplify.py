"""Simplification of exported graphs: by onnxsim, then what onnxsim leaves.

onnxsim folds constants, fuses padding into convolutions, drops common subexpressions and what nothing uses,
and checks its result with onnxruntime. The passes that turn MatMul and Add into Gemm are off. Gemm takes
matrices only, so each one needs Reshapes, and sizes computed for them, around it: the shipped text encoder
would have 190 nodes instead of 126, be 6 % slower and off by 5e-6 of its standard deviation; the generator
365 instead of 356, and 9 % slower (onnxsim 0.8.1, one thread). The one that fuses slices is off as well: it
joins a slice of a whole axis, which is dropped here, with one that has to stay.

What onnxsim leaves is done here: Reshapes get constant shapes from the tracer's sizes, a length is computed
once, slices of a whole axis go, and so does what would tell where the graph was exported.
"""

from __future__ import annotations

import ast
import contextlib
import io
import threading
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import onnx
from galip_runtime.backends.devices import available_devices
from galip_runtime.bundle.manifest import CONDITION
from galip_runtime.errors import QualityGateFailed
from onnx_ir.passes import common
from onnxscript import ir

from galip_export.check import described

__all__ = ["finish", "name_condition", "simplify"]

_IR_VERSION = 8  # the one that came with opset 18: every reader of that opset takes it
_SKIPPED_PASSES = [
    "fuse_consecutive_slices",
    "fuse_matmul_add_bias_into_gemm",
    "fuse_matmul_add_bias_into_gemm_batched",
]
_END = 2**63 - 1  # of a slice that goes on to the last element

_stdout = threading.Lock()


def simplify(model: ir.Model, inputs: Mapping[str, npt.NDArray[np.generic]]) -> ir.Model:
    """Return `model`, as torch exported it, simplified and with nodes named after their modules.

    Where onnxruntime is installed, onnxsim computes both graphs from `inputs`. Raises QualityGateFailed where
    the results differ.
    """
    _name_nodes(model.graph)
    result = ir.from_proto(_run_onnxsim(ir.to_proto(model), inputs))
    for node in result.graph:
        if node.op_type == "Reshape":
            _make_constant(result.graph, node)
        elif _takes_everything(node) and node.inputs[0] is not None:
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
    _share_lengths(result.graph)
    tidy = (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
        common.DeduplicateInitializersPass(),
    )
    ir.passes.Sequential(*tidy)(result)
    return result


def _run_onnxsim(proto: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[np.generic]]) -> onnx.ModelProto:
    import onnxsim  # takes seconds, which a mistyped path should not

    checks = int("cpu" in available_devices())  # without onnxruntime, it would take hours
    printed = io.StringIO()
    with _stdout, contextlib.redirect_stdout(printed):  # which is for results
        result, equal = onnxsim.simplify(
            proto, check_n=checks, skipped_optimizers=[*_SKIPPED_PASSES], input_data=dict(inputs)
        )
    if not equal:
        raise QualityGateFailed(
            f"onnxsim {onnxsim.__version__} changed what the graph computes: {printed.getvalue().strip()}"
        )
    return result


def _name_nodes(graph: ir.Graph) -> None:
    """Name each node after its module: `bridge.fc/Gemm_7`."""
    for index, node in enumerate(graph):
        # "['', 'bridge', 'bridge.fc', 'linear']": the modules from the outside in, then the operation
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        module = scopes[-2] if len(scopes) > 1 and not scopes[-2].startswith("_") else ""
        node.name = f"{module}/{node.op_type}_{index}".lstrip("/")


def _takes_everything(node: ir.Node) -> bool:
    """Return whether `node` is a Slice of all elements."""
    if node.op_type != "Slice":
        return False
    tensors = [ir.convenience.get_const_tensor(value) for value in node.inputs[1:] if value is not None]
    constants = [tensor.numpy() for tensor in tensors if tensor is not None]
    if len(constants) < len(node.inputs) - 1:
        return False
    starts, ends, _, *steps = constants
    return not starts.any() and (ends == _END).all() and all((step == 1).all() for step in steps)


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
    """Return `model` as a file's content: nodes numbered, and nothing that tells where it was exported."""
    for index, node in enumerate(model.graph):
        module = (node.name or "").rpartition("/")[0]
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
    """Take a size that is known only at run time from the first tensor that has it.

    Later tensors may be transposed, and onnxruntime moves the transposition past `Shape`, to a node on the
    CPU.
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
