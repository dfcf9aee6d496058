"""Nodes of a graph, changed so that none computes a single row (`row_padding` says why)."""

from collections.abc import Sequence

from galip_runtime.bundle import row_padding
from galip_runtime.bundle.onnx_reader import Node, OnnxGraph
from galip_runtime.bundle.onnx_writer import external_tensor
from galip_runtime.bundle.protobuf import encode_field, read_fields

__all__ = ["padded_nodes"]

_GRAPH_NODE, _NODE_INPUT, _NODE_OUTPUT = 1, 1, 2  # field numbers of onnx.proto

_MAX_STACK = 1024
"""the most matrices of one product; the released size has 28"""


def padded_nodes(
    graph: OnnxGraph, nodes: Sequence[Node], batch: str, threads: int, location: str, needed: set[str]
) -> list[bytes]:
    """Encode `nodes` of `graph` so that none of them computes a single row on that many CPU threads.

    `batch`: the name of the batch size; `location`: the file's name. Removes from the `needed` tensors those
    that are no longer used. Raises ValueError if the file's shapes cannot be read.
    """
    fields, padded = list[bytes](), set[tuple[str, int]]()
    for node in nodes:
        before, after = (graph.shape(names[0]) if names else None for names in (node.inputs, node.outputs))
        axis = row_padding.row_axis(node.operator, before, after, batch) if batch else None
        if stack := _stack_size(graph, node, before, batch, threads):
            rows, weights = node.inputs
            fields += _matrices(graph, weights, stack, location)
            matrices = [row_padding.matrix_name(weights, index) for index in range(stack)]
            fields += row_padding.split(rows, matrices, node.outputs[0])
            if weights in graph.external and sum(weights in user.inputs for user in nodes) == 1:
                needed.discard(weights)
            continue
        if axis is None:
            fields.append(node.encoded)
            continue
        rows, output = node.inputs[0], node.outputs[0]
        if (rows, axis) not in padded:
            fields.append(row_padding.pad(rows, axis))
            padded.add((rows, axis))
        fields.append(_rewired(node, row_padding.padded_rows(rows, axis), row_padding.padded_result(output)))
        fields.append(row_padding.unpad(output, axis))
    return fields + row_padding.constants({axis for _, axis in padded})


def _stack_size(
    graph: OnnxGraph, node: Node, before: Sequence[int | str] | None, batch: str, threads: int
) -> int:
    """Return how many constant matrices to split `node` into; 0 for a node that stays as it is."""
    # the file may be wrong about a tensor that it computes; for those it stores, the sizes were checked
    weights = graph.constants.get(graph.source(node.inputs[1])) if len(node.inputs) == 2 else None
    if weights is None or not batch:
        return 0
    stack = row_padding.stack_size(node.operator, before, weights.sizes, batch, threads)
    return stack if stack <= _MAX_STACK and before and before[0] == stack else 0


def _matrices(graph: OnnxGraph, weights: str, stack: int, location: str) -> list[bytes]:
    """Encode each matrix of the stack `weights`, named by `row_padding.matrix_name`."""
    if weights not in graph.external:
        return [field for index in range(stack) for field in row_padding.matrix(weights, index)]
    data, sizes = graph.external[weights], graph.constants[weights].sizes[1:]
    length = data.length // stack
    return [
        external_tensor(
            row_padding.matrix_name(weights, index),
            sizes,
            data.kind,
            location,
            data.offset + index * length,
            length,
        )
        for index in range(stack)
    ]


def _rewired(node: Node, first_input: str, output: str) -> bytes:
    """Encode `node` with another first input and another output."""
    (message,) = read_fields(node.encoded, 0, len(node.encoded))
    inputs = (first_input, *node.inputs[1:])
    fields = [encode_field(_NODE_INPUT, name) for name in inputs]
    fields.append(encode_field(_NODE_OUTPUT, output))
    fields += [
        node.encoded[field.start : field.end]
        for field in read_fields(node.encoded, message.begin, message.end)
        if field.number not in (_NODE_INPUT, _NODE_OUTPUT)
    ]
    return encode_field(_GRAPH_NODE, b"".join(fields))
